"""When two formulas are one value, as far as it can be told without algebra: numbers, words, tuples, intervals, sets.

What needs algebra is left open (None): the library for mathematics decides it. This module does not know where in a
text an answer stands.
"""

import re
from fractions import Fraction
from functools import lru_cache

from stillroom.tasks.latex import canonical, split, tight
from stillroom.tasks.numbers import plain

LONGEST = 1000
"""Characters of an answer that is compared as a formula; a longer one is the same only letter by letter."""


@lru_cache(maxsize=8192)
def plainly(gold: str, answer: str) -> bool | None:
    """What can be told without algebra; None where it cannot."""
    if len(answer) > LONGEST or len(gold) > LONGEST:
        return gold.strip() == answer.strip()
    return _equal(canonical(gold), canonical(answer))


def _equal(left: str, right: str) -> bool | None:
    if tight(left).lower() == tight(right).lower() and left:
        return tight(left) == tight(right) or not re.search(r"\\|\d", left)
    left, right = _sides(left, right)
    a, b = number(left), number(right)
    if a is not None and b is not None:
        return a == b
    if tight(left) == tight(right):
        return True
    if NUMERAL.fullmatch(left) and NUMERAL.fullmatch(right):
        return False
    if _words(left) or _words(right):
        return _same_words(left, right) if _words(left) else False
    return _same_parts(left, right)


def _sides(left: str, right: str) -> tuple[str, str]:
    """`x = 5` and `5` speak of one thing: an equation gives its right side to a side that has none."""
    if "\\approx" in right and "\\approx" not in left:
        exact, _, near = right.partition("\\approx")
        right = near if number(left) is not None and number(left) == number(near.strip()) else exact
    left, right = (re.sub(r"^[a-zA-Z]\s*\\in\s*", "", side) for side in (left, right))
    if "=" in right and "=" not in left:
        right = right.rpartition("=")[2]
    elif "=" in left and "=" not in right and re.match(r"\(?[a-zA-Z](?:_\d)?(?:\s?,\s?[a-zA-Z])*\)?\s*=", left):
        left = left.rpartition("=")[2]
    elif "=" in left and tight(left.partition("=")[0]) == tight(right.partition("=")[0]):
        left, right = left.rpartition("=")[2], right.rpartition("=")[2]
    if re.search(r"\d_\d+$", left) and re.fullmatch(r"\d+", right.strip()):
        left = left.rpartition("_")[0]
    return left.strip(), right.strip()


RATIONAL = re.compile(
    r"(-)?\s*(?:(\d+)(?:\s*(?=\\frac)|\s+(?=\d+\s*/)))?"
    r"(?:\\frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*(-?[\d.,]+)\s*\}"
    r"|\(?(-?[\d,.]+)\)?\s*/\s*\(?([\d,.]+)\)?|([\d,.]+))"
)


@lru_cache(maxsize=8192)
def number(text: str) -> Fraction | int | None:
    """The value of an integer, decimal, fraction or mixed number; None for anything else."""
    match = RATIONAL.fullmatch(text.strip())
    if match is None:
        return None
    minus, whole, *rest = match.groups()
    above, below = (rest[0], rest[1]) if rest[0] else (rest[2], rest[3]) if rest[2] else (rest[4], "1")
    a, b = _signed(above), _signed(below)
    if a is None or not b:
        return None
    value = Fraction(a) / b + (int(whole) if whole and len(whole) < 400 else 0)
    return -value if minus else value


def _signed(digits: str) -> Fraction | int | None:
    value = plain(digits.lstrip("-").rstrip("."))
    return -value if value is not None and digits.startswith("-") else value


def _words(text: str) -> bool:
    """Whether the answer is words, names or option letters."""
    return re.fullmatch(r"\(?[A-Za-z]\)?|[A-Za-z][A-Za-z'. -]*[A-Za-z][A-Za-z'. -]*\d{0,2}", text) is not None and (
        len(text) > 3 or text.isupper() or "(" in text
    )


def _same_words(gold: str, answer: str) -> bool:
    """Equal but for case, article and brackets, or the gold words first and then a verb or a stop."""
    left, right = (
        re.sub(r"^(?:the|an?)\s|[\"'()]|(?:option|choice)\s", "", side.lower()).strip(" .") for side in (gold, answer)
    )
    if left == right:
        return True
    after = right[len(left) :]
    return right.startswith(left) and bool(
        re.match(r"[,.:;]|\s(?:is|has|was|had|because|since|with|and is)\b|\s\W", after)
        or (len(left) == 1 and after[:1] == " ")
    )


NUMERAL = re.compile(r"\d+_\{?\d+\}?")
"""Digits with their base."""
OPEN, CLOSE = "([", ")]"


def _same_parts(left: str, right: str) -> bool | None:
    """Tuples and intervals in order, sets and lists in any order; None as soon as a part needs algebra."""
    if bool(left[:1] in OPEN and left[-1:] in CLOSE) != bool(right[:1] in OPEN and right[-1:] in CLOSE):
        return None
    if len(split(left)) == 1 and left[:1] in OPEN and left[-1:] in CLOSE:
        a, b = split(left[1:-1]), split(right[1:-1])
        if len(a) == 1 or len(b) == 1 or "\\cup" in left + right:
            return None
        return _same_places(a, b, (left[0], left[-1]) == (right[0], right[-1]))
    return _same_members(left, right)


def _same_places(a: list[str], b: list[str], brackets: bool) -> bool | None:
    same = [_equal(x, y) for x, y in zip(a, b, strict=False)]
    if len(a) != len(b) or False in same or not brackets:
        return False if len(a) != len(b) or all(s is not None for s in same) else None
    return None if None in same else True


def _same_members(left: str, right: str) -> bool | None:
    a, b = (split(re.sub(r"^\\?\{(.*?)\\?\}$", r"\1", side)) for side in (left, right))
    if len(a) < 2 or len(a) != len(b):
        return None
    remaining = list(b)
    for part in a:
        match = next((other for other in remaining if _equal(part, other)), None)
        if match is None:
            return None
        remaining.remove(match)
    return True
