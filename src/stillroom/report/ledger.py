"""The ledger of truth as one table: which lens finds what a student computes, and whether the student uses it.

A row is a lens's claim about one student and one value: where validation problems said it is, how well it is told there
from other candidates (AUROC, top-1, a probe's accuracy), beside the strongest null; and what activation patching does
at the same layer and place, where it was done: whether another problem's state moves the answer to what arithmetic
says, and whether a state of the same value does so too.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stillroom.records import Finding
from stillroom.report.evidence import place, spread, strongest

SCORED = ("AUROC", "top-1", "accuracy")
THOUGHTS = " in thoughts"
COLUMNS = ("lens", "student", "what", "where", *(c for s in SCORED for c in (s, f"{s}: strongest null")), "n",
           "verdict", "another value there moves the answer", "the same value there")  # fmt: skip
EMPTY = "–"


class Claim(NamedTuple):
    """What identifies a row."""

    lens: str
    student: str
    what: str


def ledger(findings: Sequence[Finding]) -> list[tuple[str, ...]]:
    """The rows in the order of `COLUMNS`, by student and value, so that lenses stand side by side."""
    claims: dict[Claim, dict[str, Finding]] = {}
    for f in findings:
        if found := _claim(f):
            claims.setdefault(found[0], {})[found[1]] = f
    moved = {
        (f.subject, f.layer, f.position): f
        for f in findings
        if (f.lens, f.module, f.metric) == ("patching", "residual", "answer moved")
    }
    order = list(dict.fromkeys(claim.student for claim in claims))
    told = sorted(claims.items(), key=lambda row: (order.index(row[0].student), row[0].what))
    return [(*claim, *_told(scores, moved)) for claim, scores in told]


def _claim(f: Finding) -> tuple[Claim, str] | None:
    """Whose row it is and which of its scores, for what was chosen on validation problems."""
    metric, _, chosen = f.metric.partition(", ")
    if chosen != "chosen on validation" or f.invalid:
        return None
    if f.lens == "patching" and metric == "answer moved":
        return Claim(f.lens, f.subject, "the answer"), "accuracy"
    what, _, score = metric.removesuffix(THOUGHTS).rpartition(" ")
    lens = f.lens + THOUGHTS if metric.endswith(THOUGHTS) else f.lens
    return (Claim(lens, f.subject, what), score) if score in SCORED and what.startswith("value ") else None


def _told(scores: dict[str, Finding], moved: dict[tuple[str, int | None, str], Finding]) -> Iterator[str]:
    first = next(scores[score] for score in SCORED if score in scores)
    yield place(first)
    for score in SCORED:
        one = scores.get(score)
        yield spread(one) if one else EMPTY
        yield f"{strongest(one).name} {spread(strongest(one))}" if one else EMPTY
    yield str(first.n)
    yield "found" if first.low > strongest(first).high else "not established"
    there = moved.get((first.subject, first.layer, first.position))
    yield spread(there) if there else EMPTY
    yield spread(there.nulls[0]) if there else EMPTY
