"""What a search for the answer in a text brings back."""

from typing import NamedTuple


class Found(NamedTuple):
    rule: str
    """asked, boxed, ####, conclusion, prose, last, bare, or none."""
    answer: str | None
    parsed: bool
    """Whether the answer is one of its kind: a number, a letter of the choices, yes or no, a formula."""


NOTHING = Found("none", None, False)
