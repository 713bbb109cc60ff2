"""Any two models side by side, without a recipe: opened, looked at through the lenses that both allow."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from stillroom.errors import DataError, UsageError, unknown
from stillroom.evaluation.models import Given, open_model, settled
from stillroom.lenses import ALIKE, LENSES
from stillroom.lenses.gathering import gathered
from stillroom.lenses.selection import CHOSEN
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.pipeline.questions import standing
from stillroom.progress import say
from stillroom.records import Finding, Problem
from stillroom.store import Workplace
from stillroom.students import Student, load
from stillroom.students.folders import ADAPTER, MANNER
from stillroom.students.pretrained import Pretrained, make_pretrained
from stillroom.tasks import TEST, TRAIN

VALIDATION = "validation"
OTHER = "B"
NAMES = {BASE: "A", OTHER: "B", "": ""}


class Difference(NamedTuple):
    """Findings in which the models are A and B, and a sentence for every lens that was left out."""

    findings: list[Finding]
    notes: list[str]


def opened(source: str, device: str, style: str) -> Student:
    """A student's folder, or any model's folder or name on the hub, not merged yet; an adapter's stands on its base."""
    if (Path(source) / MANNER).is_file():
        return load(Path(source), device)
    if (Path(source) / ADAPTER).is_file():
        given = settled(Given(source=source))
        taught = (Path(given.source) / MANNER).is_file()
        return open_model(given if taught else Given.parse({**given.model_dump(), "style": style}, "diff"), device)
    with tempfile.TemporaryDirectory() as scratch:
        make_pretrained(Pretrained.parse({"source": source, "style": style}, "diff"), Workplace(out=Path(scratch)))
        return load(Path(scratch), device)


def problems(data: str, limit: int) -> dict[str, list[Problem]]:
    """At most `limit` problems of each number of steps and split. Without a validation split the test's halves serve.

    Raises `UsageError` for an unknown task and `DataError` for fewer than two problems to look at.
    """
    splits = standing(data).splits()
    asked = splits.get(TEST) or next(iter(splits.values()))
    if not splits.get(VALIDATION):
        splits[VALIDATION], asked = asked[::2], asked[1::2]
    if not asked or not splits[VALIDATION]:
        raise DataError(f"{data}: fewer than two problems: one half is for choosing, the other for reporting")
    chosen = {TRAIN: splits.get(TRAIN, []), VALIDATION: splits[VALIDATION], TEST: asked}
    return {name: list(_limited(rows, limit * (4 if name == TRAIN else 1))) for name, rows in chosen.items()}


def _limited(rows: Sequence[Problem], limit: int) -> Iterator[Problem]:
    seen: dict[int, int] = {}
    for problem in rows:
        steps = len(problem.steps)
        seen[steps] = seen.get(steps, 0) + 1
        if seen[steps] <= limit:
            yield problem


def difference(first: Student, second: Student, names: Sequence[str], splits: dict[str, list[Problem]]) -> Difference:
    """What the lenses find that the two models allow, a line for each that looks. Raises `UsageError` for an unknown
    lens, and `DataError` for a model that holds or says NaN or infinity."""
    for name in names:
        if name not in LENSES:
            raise UsageError(unknown("lens", name, LENSES))
    students, corrections = gathered({BASE: first, OTHER: second})
    for who, student in students.items():
        _refuse_broken(NAMES[who], student, splits[TEST][0])
    alike = {what: told(students[BASE], students[OTHER]) for what, told in ALIKE.items()}
    subjects = Subjects(students, {}, splits, corrections)
    findings: list[Finding] = []
    notes = []
    for name in names or LENSES:
        lacking = [what for what in sorted(LENSES[name].needs) if not alike[what]]
        if lacking:
            notes.append(f"{name}: left out, since it compares models of the same {' and '.join(lacking)}")
            continue
        say(f"lens {name} ...")
        found = LENSES[name].look(LENSES[name].config(), subjects)
        findings += found
        if not found:
            notes.append(
                f"{name}: found nothing to measure: problems whose steps are not known, or too few that suit it"
            )
    return Difference([_named(finding) for finding in findings], notes)


@torch.no_grad()
def _refuse_broken(who: str, student: Student, problem: Problem) -> None:
    broken = [name for name, weight in student.model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise DataError(
            f"{who}: its weight {broken[0]} holds NaN or infinity: its training diverged, or its file is damaged; name "
            "another model"
        )
    ids = torch.tensor([student.prompt(problem.question)], device=student.model.device)
    if not student.model(input_ids=ids).logits.isfinite().all():
        raise DataError(
            f"{who}: its outputs are NaN or infinity, though its weights are numbers: hold it in a wider dtype, or "
            "name another model"
        )


def _named(finding: Finding) -> Finding:
    nulls = tuple(null.model_copy(update={"name": NAMES.get(null.name, null.name)}) for null in finding.nulls)
    who = {"subject": NAMES[finding.subject], "reference": NAMES[finding.reference]}
    return finding.model_copy(update={**who, "nulls": nulls})


def headlines(findings: Sequence[Finding]) -> list[Finding]:
    """Those that a terminal shows: what was chosen, whole layers, whole classes, and all that is marked invalid."""
    whole = {"share of squared change", "Gini of the squared change", "modules that hold half of the change"}
    return [
        f
        for f in findings
        if f.invalid
        or CHOSEN in f.metric
        or f.metric in whole
        or (f.metric == "CKA" and f.position == "all")
        or f.metric == "divergence (nats)"
    ]


def line(finding: Finding) -> str:
    """One finding as a line of text with its n, interval and nulls, or why it is no measurement."""
    layer = "" if finding.layer is None else f"layer {finding.layer}"
    where = ", ".join(part for part in (layer, finding.module, finding.position) if part)
    who = f"{finding.reference} → {finding.subject}" if finding.reference else finding.subject
    head = f"{finding.lens}: {who}: {finding.metric} ({where}): "
    if finding.invalid:
        return f"{head}no measurement: {finding.invalid}"
    nulls = "; ".join(f"{null.name} {null.value:.3g}" for null in finding.nulls)
    return f"{head}{finding.value:.3g} [{finding.low:.3g}, {finding.high:.3g}] n {finding.n}; null: {nulls}"
