"""Which granularity, format and teacher suit which student: of one run what it compares, of a sweep what its intervals
allow to say of each student."""

from collections.abc import Iterator, Sequence

from stillroom.records import Effect, Finding, GridRow, Score
from stillroom.report.evidence import Evidence, share, spread
from stillroom.report.figures import MAJORITY
from stillroom.report.grids import differences, formats, strengths, trends

SWEEPS = (
    "`stillroom run granularity-svamp` compares six granularities, four formats and two sizes of student; with "
    "`sweep='{teacher.teacher: [chatgpt, gemini]}'` behind it, two teachers."
)
AXES = {"granularity": trends, "format": formats, "teacher": differences}
UNCOMPARED = f"Not established: this run tells of no rationale that was taught. {SWEEPS}"
UNVARIED = f"Not established: this sweep varies none of them with all else equal. {SWEEPS}"


def suits(evidence: Evidence) -> list[str]:
    """What a single run has on it: what was written, and what each student is worth at which cost."""
    if not evidence.taught:
        return []
    cells = [tuple(str(part) for part in one["cell"][1:] if part is not None) for one in evidence.taught]
    words = [
        f"{', '.join(cell)}: {_words(one['words'])} words a rationale (n = {one['n']})"
        for cell, one in zip(cells, evidence.taught, strict=True)
    ]
    compared = "one experiment" if len(cells) > 1 else "one teacher, format and granularity"
    told = [
        f"Taught was {'; '.join(words)}. This is {compared}, without another beside it (null: no difference): which "
        f"suits which student is not established. {SWEEPS}"
    ]
    if worth := list(_worth(evidence)):
        null = evidence.score("majority", "test")
        beside = f"; null (the most frequent training answer) {share(null)} for nothing" if null else ""
        told.append(f"What each student is worth, so taught: {'; '.join(worth)}{beside}.")
    return told


def _words(told: Sequence[float]) -> str:
    return f"{told[0]:.3g} [{told[1]:.3g}, {told[2]:.3g}]"


def _worth(evidence: Evidence) -> Iterator[str]:
    for name in evidence.students():
        cost = next((f for f in evidence.measured("cost", name) if not f.position), None)
        score = evidence.score(name, "test")
        if score and cost:
            yield f"{evidence.named(name)} {share(score)} right at {_millions(cost)} million operations an answer"


def _millions(cost: Finding) -> str:
    return f"{cost.value / 1e6:.3g} [{cost.low / 1e6:.3g}, {cost.high / 1e6:.3g}]"


def suited(grid: Sequence[GridRow], effects: Sequence[Effect], scores: Sequence[Score]) -> list[str]:
    """For each student of a sweep its best cell, and what the paired intervals say of every axis that was varied."""
    if not any(e.question in AXES for e in effects):
        return [UNVARIED]
    null = next((s for s in scores if s.student.startswith(MAJORITY) and (s.split, s.group) == ("test", "all")), None)
    students: dict[tuple[str, ...], list[GridRow]] = {}
    for row in grid:
        if row.teacher or row.level is not None or row.format:
            students.setdefault((row.student, row.base, row.rest), []).append(row)
    told = []
    for who, rows in students.items():
        name = ", ".join(part for part in who if part)
        mine = [e for e in effects if set(filter(None, who)) <= set(e.subject.split(", "))]
        told.append(f"{name}: {_best(rows, null)} {' '.join(_axes(mine))}")
    return [*told, *(f"Strength: {one}" for one in strengths([e for e in effects if e.question == "strength"]))]


def _best(rows: Sequence[GridRow], null: Score | None) -> str:
    best = max(rows, key=lambda row: row.value)
    level = "" if best.level is None else f"granularity {best.level}"
    cell = ", ".join(part for part in (level, best.format, best.teacher) if part)
    above = "above" if null and best.low > null.high else "not above"
    beside = f", {above} the null, the most frequent training answer: {share(null)}" if null else ""
    return f"right most often with {cell}, in {spread(best)} (n = {best.n}){beside}."


def _axes(effects: Sequence[Effect]) -> Iterator[str]:
    for axis, say in AXES.items():
        mine = [e for e in effects if e.question == axis]
        said = "; ".join(one.removesuffix(".") for one in say(mine)) + "." if mine else "not compared here."
        subjects = {e.subject for e in mine}
        yield f"{axis.capitalize()}: {said.replace(f'{subjects.pop()}: ', '') if len(subjects) == 1 else said}"
