"""What a search for the answer in a text brings back."""

from collections.abc import Sequence
from typing import NamedTuple

from stillroom.tasks.commitments import Commitment


class Found(NamedTuple):
    rule: str
    """asked, boxed, ####, conclusion, prose, last, bare, or none."""
    answer: str | None
    parsed: bool
    """Whether the answer is one of its kind: a number, a letter of the choices, yes or no, a formula."""


NOTHING = Found("none", None, False)


def unread(commitments: Sequence[Commitment]) -> Found:
    """A commitment that is not of the kind, such as `The answer is unknown`, or nothing where there is none."""
    return Found(commitments[0].rule, commitments[0].text[:200], False) if commitments else NOTHING
