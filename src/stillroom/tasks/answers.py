"""The one grader: finds the answer that a text commits to, says by which rule, and compares it with the gold one.

The form that is asked for is `The answer is X`; the last one in a text counts.
"""

import re
from fractions import Fraction

from stillroom.records import Verdict

ASKED = re.compile(r"the answer is:?\s*(-?[\d,]*\.?\d+|[^\n]+?)\s*\.?\s*(?=\n|$|\.\s)", re.IGNORECASE)


def grade(gold: str, text: str) -> Verdict:
    """A verdict on `text`: correct when the answer that it commits to last equals `gold`, as number or as text."""
    found = ASKED.findall(text)
    if not found:
        return Verdict(correct=False, extracted=None, rule="none", parsed=False)
    answer = found[-1].strip()
    return Verdict(correct=_same(answer, gold), extracted=answer, rule="asked", parsed=True)


def _same(answer: str, gold: str) -> bool:
    if answer == gold:
        return True
    left, right = _number(answer), _number(gold)
    return left is not None and left == right


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None
