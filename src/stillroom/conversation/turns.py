"""What a conversation is made of, as plain data: how a student is asked, what it thought, what it said."""

from collections.abc import Mapping
from dataclasses import dataclass

from stillroom.errors import UsageError, unknown
from stillroom.evaluation.thinking import MOST_DIGITS, OFF, counts

KINDS: Mapping[str, str] = {
    "zero": "a vector of zeros",
    "mean": "the mean of that thought over other questions",
    "noise": "itself and as much again in a random direction",
    "swap": "the same thought about another question",
    "skip": "nothing: the position is left out",
}
"""What can stand in for a thought. See docs/thoughts.md for what the engine does with each."""


@dataclass(frozen=True)
class Change:
    """One thought, counted from 0, and what is consumed in its place; `other` is the question that a swap takes it
    from (empty: another of the conversation or of the student's test problems)."""

    step: int
    kind: str
    other: str = ""


@dataclass(frozen=True)
class Way:
    """How a question is asked. `thoughts` is empty for as many as the student was taught, a number, or `off`."""

    thoughts: str = ""
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        if self.thoughts not in ("", OFF) and not counts(self.thoughts):
            raise UsageError(
                f"thoughts {self.thoughts[:40]!r}: expected a number or {OFF} (at most {MOST_DIGITS} digits)"
            )
        for change in self.changes:
            if change.kind not in KINDS:
                raise UsageError(unknown("intervention", change.kind, KINDS))

    def changed(self, change: Change) -> "Way":
        """The same, this thought replaced in one way only."""
        return Way(self.thoughts, (*(c for c in self.changes if c.step != change.step), change))


@dataclass(frozen=True)
class Shown:
    """One thought. `values`, `change` (from the thought before), norm, cosine and sparsity are those of the vector that
    was consumed; `entropy` (nats) and `top` are what the vocabulary reads in the hidden state that it was made of."""

    step: int
    values: tuple[float, ...]
    change: tuple[float, ...]
    norm: float
    cosine_to_previous: float | None
    sparsity: float
    entropy: float
    top: tuple[tuple[str, float], ...]
    replaced: str = ""
    """What stood in for it, one of `KINDS`; a skipped thought has no values."""


@dataclass(frozen=True)
class Turn:
    """One question and what came of it."""

    student: str
    question: str
    way: Way
    answer: str
    stopped: bool
    """Whether the student ended its answer; else the limit cut it off."""
    tokens: int
    seconds: float
    thoughts: tuple[Shown, ...] = ()
    early: tuple[str, ...] = ()
    """What is said when thinking ends after 0, 1, … thoughts; the last is `answer`."""
    undisturbed: str | None = None
    """The answer when no thought is replaced; None where none was."""


@dataclass(frozen=True)
class Contrast:
    """Two students on one question: whether they answer alike, and the cosine of each thought of one with the same
    thought of the other, where both have one and these are equally wide."""

    alike: bool
    cosines: tuple[float, ...]
