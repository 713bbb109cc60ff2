"""What a store holds, as the studio shows it: runs, where they come from, their students, and what these answered."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stillroom.errors import DataError, UsageError
from stillroom.evaluation.chains import stated, steps_of
from stillroom.files import read_lines
from stillroom.records import Prediction, Problem, Verdict
from stillroom.store import Manifest, Store

MODELS = ("student", "base")
R = TypeVar("R", Prediction, Verdict)


def name_of(manifest: Manifest) -> str:
    return f"{manifest.stage}/{manifest.key}"


def runs(store: Store) -> dict[str, str]:
    """What each run is called, newest first, and its folder's name: every stage that no other was made from."""
    made = list(store.manifests())
    used = {f"{parent.stage}/{parent.key}" for manifest in made for parent in manifest.parents.values()}
    last = [manifest for manifest in reversed(made) if name_of(manifest) not in used]
    return {
        f"{_title(manifest)} · {manifest.started[:16].replace('T', ' ')} · {name_of(manifest)}": name_of(manifest)
        for manifest in last
    }


def _title(manifest: Manifest) -> str:
    return str(manifest.config["recipe"]) if manifest.stage == "report" else manifest.name


def lineage(store: Store, run: str) -> list[Manifest]:
    """Everything that a run was made from, parents first, and itself. Raises `UsageError` for a run that is gone."""
    known = {name_of(manifest): manifest for manifest in store.manifests()}
    if run not in known:
        raise UsageError(f"{run} is not in the store {store.root} any more: choose another run")
    found: dict[str, Manifest] = {}

    def visit(name: str) -> None:
        if name in known and name not in found:
            for parent in known[name].parents.values():
                visit(f"{parent.stage}/{parent.key}")
            found[name] = known[name]

    visit(run)
    return list(found.values())


def depths(made: list[Manifest]) -> dict[str, int]:
    """How many stages stand before each, at most."""
    found: dict[str, int] = {}
    for manifest in made:
        parents = [f"{parent.stage}/{parent.key}" for parent in manifest.parents.values()]
        found[name_of(manifest)] = 1 + max((found[name] for name in parents if name in found), default=-1)
    return found


def students(store: Store, run: str) -> dict[str, Path]:
    """The models of a run by name; two of one name are told apart by their keys."""
    models = [manifest for manifest in lineage(store, run) if manifest.stage in MODELS]
    names = [manifest.name for manifest in models]
    return {
        m.name if names.count(m.name) == 1 else f"{m.name} {m.key[:6]}": store.folder(m.stage, m.key) for m in models
    }


@dataclass(frozen=True)
class Case:
    """One problem, and what every student of a run made of it."""

    problem: Problem
    said: dict[str, Prediction]
    verdicts: dict[str, Verdict]


def splits(store: Store, run: str) -> dict[str, Manifest]:
    """The splits that were graded, each with the stage `scores` that holds them."""
    scores = [manifest for manifest in lineage(store, run) if manifest.stage == "scores"]
    return {
        path.stem: manifest
        for manifest in scores
        for role in manifest.config["students"]
        for path in sorted((store.folder("scores", manifest.key) / role).glob("*.jsonl"))
        if (_parent(store, manifest, "problems") / path.name).is_file()
    }


def cases(store: Store, run: str, split: str) -> list[Case]:
    """Raises `DataError` for a run whose answers were not graded."""
    graded = splits(store, run)
    if split not in graded:
        raise DataError(
            f"{run} holds no graded answers to {split or 'any problem'}: choose a run that went as far as `scores`"
        )
    manifest = graded[split]
    roles = list(manifest.config["students"])
    said = {role: _by_problem(_parent(store, manifest, role) / f"{split}.jsonl", Prediction) for role in roles}
    judged = {
        role: _by_problem(store.folder("scores", manifest.key) / role / f"{split}.jsonl", Verdict) for role in roles
    }
    problems = {p.id: p for p in read_lines(_parent(store, manifest, "problems") / f"{split}.jsonl", Problem)}
    return [
        Case(problems[name], {r: said[r][name] for r in roles}, {r: judged[r][name] for r in roles})
        for name in said[roles[0]]
        if name in problems
    ]


def _parent(store: Store, manifest: Manifest, role: str) -> Path:
    return store.folder(manifest.parents[role].stage, manifest.parents[role].key)


def _by_problem(path: Path, record: type[R]) -> dict[str, R]:
    return {row.problem: row for row in read_lines(path, record)}


def reasons(case: Case, role: str) -> Iterator[str]:
    """What the record itself tells of why a student failed here, in sentences."""
    said, verdict, steps = case.said[role], case.verdicts[role], case.problem.steps
    if verdict.correct:
        yield "It did not fail: its answer is right."
        return
    if said.truncated:
        yield "It was not asked: the question left no room for an answer in its context."
        return
    if not said.stopped:
        yield "It did not end its answer: the length limit cut it off."
    if not verdict.parsed:
        yield "No answer could be read from what it wrote."
    values = [step.value for step in steps]
    if verdict.extracted is not None and verdict.extracted in values[:-1]:
        step = values.index(verdict.extracted) + 1
        yield f"Its answer {verdict.extracted} is the value of step {step}: it stopped too early."
    yield from _first_wrong(said.text, values)
    others = [name for name, one in case.verdicts.items() if name != role and one.correct]
    alike = [n for n, one in case.verdicts.items() if n != role and one.extracted == verdict.extracted is not None]
    yield f"Of the others {', '.join(others)} solved it." if others else "None of the others solved it."
    if alike:
        yield f"{', '.join(alike)} gave the same wrong answer."


def _first_wrong(text: str, values: list[str]) -> Iterator[str]:
    written = [stated(step) for step in steps_of(text)]
    for number, (own, true) in enumerate(zip(written, values, strict=False), 1):
        if own != true:
            yield f"Its step {number} comes to {own or 'no value'}, where {true} is right; the steps before are right."
            return
    if written and len(written) != len(values):
        yield f"It wrote {len(written)} steps, and the solution has {len(values)}."
