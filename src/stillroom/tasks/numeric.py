"""The kind `numeric`: one number, whatever stands around it."""

import re
from collections.abc import Sequence
from functools import lru_cache

from stillroom.tasks.commitments import WINDOW, commitments, conclusions, corrected, sentence
from stillroom.tasks.found import Found, unread
from stillroom.tasks.latex import unwrap
from stillroom.tasks.numbers import LONGEST, Reading, agree, readings
from stillroom.tasks.spelled import worded

RESULT = re.compile(r"[=≈]\s?[$€£*_]{0,3}(-?[\d,]*\.?\d+)(?!\s?[-+*/×÷=\d]|[.,]\d)")
DIRECT = re.compile(r"[\s$*_(~≈£€:-]{0,6}[\d.,]+(?![\d.,]*\s?[-+*/×÷=])")
EQUALS = re.compile(r"=|≈|\bequals\b")
ARITHMETIC = re.compile(r"\s?x\s?\d|\s{0,2}(?:[a-zA-Z]+\s?)?[-+*/×÷=]")
LISTED = re.compile(r"\s*(?:,\s*and|,|and|or|&)\s*[$€£]?\d[\d.,]*\s*(?=$|,|and\b|or\b|[.;])")
DENIED = re.compile(r"\b(?:not|n't|instead of|rather than|and not)\s(?:\w+\s)?[$*]*$", re.IGNORECASE)
ASIDE = re.compile(
    r"\b(?:for|when|than|with|after|before|out of|of (?:his|her|their|its|the|which|these|those)|from|while|during"
    r"|because|since|if|at|by|instead of|including|plus|given)\b"
    r"(?![^.;]*\b(?:total|sum|altogether|all|is|are|was|were|has|have|had|gets?|makes?|left)\b)[^.;]*$",
    re.IGNORECASE,
)
"""Words that lead up to a number of a side remark: `for 16 glasses`, `after spending $16`."""
LIST_MARK = re.compile(r"^\s*(?:\d{1,2}[.)]\s+(?=\S)|step \d+[:.)]?\s?|\(\d{1,2}\)\s)", re.IGNORECASE)
REMARK = re.compile(r"(?<=\w)[*_]{0,3}\s\([^()]*[a-zA-Z]{3}[^()]*\)[.!]?$")
OF_THE = re.compile(r"\b(?:for|among|between|by|with)\s(?:all\s)?(?:of\s)?(?:the|his|her|their|these|those)\s$")
"""Before a number that only tells what the answer is about: `pay $64 for the 16 glasses`."""
BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")


def commit(text: str, _choices: Sequence[str]) -> Found:
    """The number that the text commits to last."""
    stated = list(commitments(text))
    if stated and (number := _concluded(corrected(text, stated[0].start), text)):
        return Found("conclusion", number.text, bool(number.values))
    for rule, piece, start, _ in stated:
        said = sentence(piece)
        number = pick(unwrap(said), text[max(0, start - WINDOW) : start], first=True)
        if number is not None and not (rule == "asked" and working_follows(said, text[start:])):
            return Found(rule, number.text, bool(number.values))
    number = _concluded(text[stated[0].start :] if stated else text, text)
    return Found("conclusion", number.text, bool(number.values)) if number else unread(stated)


def _concluded(tail: str, text: str) -> Reading | None:
    """The number of the last sentence that has one; a remark in brackets at its end does not count."""
    for line in conclusions(tail):
        said = unwrap(LIST_MARK.sub("", line))
        for piece in dict.fromkeys((REMARK.sub("", said), said)):
            if number := pick(piece, text[-WINDOW:], first=False):
                return number
    return None


def working_follows(said: str, text: str) -> bool:
    """Whether `Answer:` is the title of a whole solution: what it says first is a step, and results come after it."""
    if DIRECT.match(unwrap(said)):
        return False
    at = text.find(said)
    return RESULT.search(text, at + len(said)) is not None


def last(text: str, _choices: Sequence[str]) -> str | None:
    """The last number in digits, else in words."""
    tail = unwrap(text[-WINDOW:])
    for window in (tail[-48:], tail[-120:], tail):
        found = list(readings(window)) or list(worded(window)) if window is tail else list(readings(window))
        if found and (found[-1].start > 0 or window is tail):
            return found[-1].text
    return None


def same(gold: str, answer: str) -> bool:
    left, right = value(gold), value(answer)
    return left is not None and right is not None and agree(left, right)


@lru_cache(maxsize=4096)
def value(text: str) -> Reading | None:
    """The number that a text consists of, units and all; None where there is none."""
    if text.isascii() and text.isdigit() and len(text) <= LONGEST:  # as most are: nothing to look for
        return Reading((int(text),), text, 0, len(text))
    return pick(unwrap(text), "", first=True)


def pick(piece: str, before: str, *, first: bool) -> Reading | None:
    """The number of a sentence that states the answer; `before` is the working, whose result breaks a tie."""
    found = [
        reading for reading in readings(piece) if not DENIED.search(piece[max(0, reading.start - 24) : reading.start])
    ]
    found = [reading for reading in found if not reading.ordinal] or found
    found = [
        reading for reading in found if not OF_THE.search(piece[max(0, reading.start - 30) : reading.start])
    ] or found
    if not found:
        return next(worded(piece), None) if first or len(piece) < 200 else None
    if first and not piece[: found[0].start].strip(" $*_(~≈:\"'about") and not ARITHMETIC.match(piece, found[0].end):
        return _alone(found[0], piece)
    if equals := [match.end() for match in EQUALS.finditer(piece)]:
        behind = [reading for reading in found if reading.start >= equals[-1]]
        if behind:
            return behind[0]
    return _preferred(found, piece, before, first=first)


def _alone(number: Reading, piece: str) -> Reading:
    """The number, or a list where more of them follow as equals: a list is not one number."""
    match = LISTED.match(piece, number.end)
    if match and not piece[match.end() :].strip(" .,;0123456789and"):
        return Reading((("range", piece[number.start :].strip(" .")),), piece.strip(), number.start, len(piece))
    return number


def _preferred(found: list[Reading], piece: str, before: str, *, first: bool) -> Reading:
    """The number in bold, else the one that the working arrived at last, else the first or the last."""
    bold = [match.span() for match in BOLD.finditer(piece)]
    marked = [r for r in found if any(start <= r.start < end for start, end in bold)]
    if marked:
        return marked[0] if first else marked[-1]
    if len(found) > 1:
        results = RESULT.findall(before)
        for result in reversed(results[-3:]):
            reached = value(result)
            if reached and (equal := [r for r in found if agree(reached, r)]):
                return equal[-1]
    return found[0] if first else _main(found, piece)[-1]


def _main(found: list[Reading], piece: str) -> list[Reading]:
    """The numbers of a sentence that no `for`, `when`, `with` and the like sets aside; all where each is set aside."""
    starts = [0, *(reading.end for reading in found)]
    apart = [ASIDE.search(piece[start : r.start]) for start, r in zip(starts, found, strict=False)]
    return [r for r, aside in zip(found, apart, strict=True) if not aside] or found
