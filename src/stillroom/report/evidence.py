"""What a run offers as evidence, and how a measurement is put into a sentence: value, interval, n, null, place."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from stillroom.records import Comparison, Finding, GridRow, Null, Score
from stillroom.stats import Interval

SIGNIFICANT = 0.05
NONE: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


class Evidence(NamedTuple):
    scores: Sequence[Score]
    comparisons: Sequence[Comparison]
    findings: Sequence[Finding]
    oracles: Mapping[str, Mapping[str, Any]] = NONE
    """What was claimed of each student's thoughts: its `oracle.json`."""
    taught: Sequence[Mapping[str, Any]] = ()
    """What each teacher wrote: the cells of the compliance reports."""

    def score(self, student: str, split: str, group: str = "all") -> Score | None:
        """The accuracy of a student's first seed, or None where it was not measured."""
        address = (student, split, group, "accuracy")
        return next((s for s in self.scores if (s.student, s.split, s.group, s.metric) == address), None)

    def strata(self, student: str, a: str, b: str) -> list[tuple[int, int, int, int]]:
        """Right and asked in one split and in another, number of steps by number of steps; all at once where steps are
        not known."""
        groups = dict.fromkeys(s.group for s in self.scores if s.student == student and s.group.isdecimal())
        pairs = [(self.score(student, a, group), self.score(student, b, group)) for group in groups or ("all",)]
        return [(round(x.value * x.n), x.n, round(y.value * y.n), y.n) for x, y in pairs if x and y]

    def named(self, student: str) -> str:
        """The student, and where it has several seeds, which of them `score` tells of."""
        seeds = list(dict.fromkeys(s.seed for s in self.scores if s.student == student))
        return student if len(seeds) < 2 else f"{student} (seed {seeds[0]}, one of {len(seeds)})"

    def measured(self, lens: str, student: str) -> list[Finding]:
        """What was measured of a student's first seed, the one that `score` tells of."""
        mine = [f for f in self.findings if f.lens == lens and unseeded(f.subject) == student]
        return [f for f in mine if f.subject == mine[0].subject]

    def further_splits(self) -> list[str]:
        """The splits beside `train` and `test`: composition, more steps, other tasks."""
        return [name for name in dict.fromkeys(s.split for s in self.scores) if name not in ("train", "test")]

    def students(self) -> list[str]:
        names = dict.fromkeys(s.student for s in self.scores)
        return [name for name in names if name not in ("majority", "base")]


def rivals(f: Finding) -> list[Null]:
    """The nulls that chance could move: a model beside itself does not differ, whatever is measured."""
    return [null for null in f.nulls if null.name != "self-diff"]


def unseeded(name: str) -> str:
    """`base@1` → `base`."""
    return name.partition("@")[0]


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def spread(measured: Score | Finding | GridRow | Null | Interval) -> str:
    return f"{percent(measured.value)} [{percent(measured.low)}, {percent(measured.high)}]"


def share(measured: Score | Finding) -> str:
    return f"{spread(measured)} (n = {measured.n})"


def strongest(finding: Finding) -> Null:
    """The null that reaches furthest up: what a claim has to beat."""
    return max(finding.nulls, key=lambda null: null.high)


def place(finding: Finding) -> str:
    return f"layer {finding.layer}, {finding.position}"
