"""The last stages of a sweep: the students of all its cells side by side."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from stillroom import report
from stillroom.crosscoder import sizes as side_by_side
from stillroom.evaluation import comparing
from stillroom.evaluation.comparing import Member
from stillroom.evaluation.trends import Arm
from stillroom.lenses.subjects import BASE
from stillroom.pipeline.staging import choose, staged
from stillroom.recipes import Recipe
from stillroom.recipes.sweeps import chosen, common, short
from stillroom.report import overview
from stillroom.store import Stage
from stillroom.teachers import TEACHERS, one_name


def comparison(where: str, cells: Mapping[str, Recipe], plans: Mapping[str, Sequence[Stage]]) -> Iterator[Stage]:
    """A `comparison` of the cells' scores and a page that shows it."""
    made = {(cell, role): _of(stages, role) for cell, stages in plans.items() for role in ("scores", "problems")}
    parents = {f"{role} {cell}": stage for (cell, role), stage in made.items()}
    scores = {cell: made[cell, "scores"] for cell in plans}
    config = comparing.ComparisonConfig(cells=tuple(plans), members=tuple(members(where, cells, scores)), untaught=BASE)
    run = partial(comparing.make_comparison, config)
    stage = staged("comparison", "comparison", comparing.VERSION, config, parents, run)
    yield stage
    page = overview.OverviewConfig(recipe=where)
    show = partial(overview.make_overview, page)
    by_size = {made.stage: made for made in sizes(plans)}
    yield from by_size.values()
    drawn = {"comparison": stage, **by_size}
    yield staged("report", "overview", report.VERSION, page, drawn, show)


def sizes(plans: Mapping[str, Sequence[Stage]]) -> Iterator[Stage]:
    """The crosscoders of all cells side by side, where the recipe has any."""
    parents: dict[str, Stage] = {}
    pairs = []
    for cell, stages in plans.items():
        for made in (stage for stage in stages if stage.stage == "crosscoder"):
            role = f"{made.name} [{cell}]"
            names = {who: f"{made.config[who]}{made.config['suffix']}" for who in ("reference", "subject")}
            pairs.append(side_by_side.Pair(role=role, cell=cell, **names))
            parents |= {role: made, f"scores {cell}": _of(stages, "scores")}
    if pairs:
        config = side_by_side.SizesConfig(pairs=tuple(pairs))
        run = partial(side_by_side.make_sizes, config)
        yield staged("sizes", "sizes", side_by_side.VERSION, config, parents, run)


def _of(stages: Sequence[Stage], role: str) -> Stage:
    return next(stage for stage in stages if stage.stage == role)


def members(where: str, cells: Mapping[str, Recipe], scores: Mapping[str, Stage]) -> Iterator[Member]:
    """Every student of every seed once, however many cells share its answers."""
    sharing: dict[str, list[tuple[str, str]]] = {}
    for cell, stage in scores.items():
        for role in stage.config["students"]:
            sharing.setdefault(stage.parents[role].key, []).append((cell, role))
    for found in sharing.values():
        first, role = found[0]
        name, seed = scores[first].config["students"][role]
        axes = _agreed([_axes(where, cells[cell], name) for cell, _ in found])
        told = first if len(found) == 1 else common([cells[cell].sweep for cell, _ in found])
        yield Member(cell=first, role=role, where=told, seed=seed, arm=Arm(student=name, **axes))


def _agreed(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in told[0].items() if all(other.get(key) == value for other in told)}


def _axes(where: str, recipe: Recipe, student: str) -> dict[str, Any]:
    """Where a student stands: by its teacher's config, and in the sweep's own words for the base and for the rest."""
    labels = chosen(recipe.sweep)
    names = short(labels)
    told = {field: label if label[:1].isalpha() else f"{names[field]}={label}" for field, label in labels.items()}
    rest = [told[field] for field in told if _room(field) not in ("base", "teacher", "students", "seeds")]
    pretrained = recipe.base.pretrained
    base = " ".join(told[field] for field in told if _room(field) == "base")
    axes = {"base": base or (pretrained.source if pretrained else ""), "rest": " ".join(rest)}
    if student == BASE and (pretrained or recipe.base.teacher):
        return axes  # no teacher of this cell taught it
    _, teacher = choose(TEACHERS, recipe.teacher, "teacher", where)
    given = teacher.model_dump()
    name = labels.get("teacher") or given.get("teacher") or given.get("model") or given["name"]
    form = one_name(given.get("format") or "")
    return {**axes, "teacher": str(name), "level": given.get("granularity"), "format": form}


def _room(field: str) -> str:
    return field.partition(".")[0]
