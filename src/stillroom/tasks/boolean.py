"""The kind `boolean`: yes or no, true or false, in one word or in prose with its negations."""

import re
from collections.abc import Iterator, Sequence

from stillroom.tasks.commitments import WINDOW, commitments, conclusions, sentence
from stillroom.tasks.found import Found, unread

WORD = re.compile(
    r"\b(?:is|are|was|were|be|as|statement|claim)(?P<not>n't|\s(?:not|never))?\s(?:\w+ly\s)?"
    r"(?:(?P<yes>yes|true|correct|right|accurate|valid|plausible)"
    r"|(?P<no>no(?!\s(?-i:[a-z]))|false|incorrect|wrong|inaccurate|untrue|invalid|implausible))\b(?!-)",
    re.IGNORECASE,
)
PLAIN = re.compile(
    r"\b(?P<not>(?:not|isn't|never)\s)?(?:(?P<yes>yes|true)|(?P<no>"
    r"no(?!\s(?!because|since|it|they|he|she|there|and|but|or|as|for|in|to|not|the|this|that|however|although|though)"
    r"(?-i:[a-z]))|false))\b(?!-)",
    re.IGNORECASE,
)
LONE = re.compile(
    r"\W*(?:\(?[ab][).:]\s*)?"
    r"(?:(?P<yes>correct|right|valid|plausible|y|t|1)|(?P<no>incorrect|wrong|invalid|implausible|n|f|0))\W*",
    re.IGNORECASE,
)
DOUBT = re.compile(
    r"\b(?:cannot be determined|can't be determined|cannot determine"
    r"|not (?:clear|certain|possible to (?:say|know|determine|tell))|unclear|unknown|uncertain|it depends"
    r"|not enough information|insufficient|undetermined|(?:yes|true) (?:or|and) (?:no|false)|yes/no)\b",
    re.IGNORECASE,
)
DENIAL = re.compile(
    r"\b(?:not|cannot|never|no longer|unlikely|impossible|unable|fails?|lacks?|ineligible|improbable|very low"
    r"|implausible|neither|nobody|nothing|none)\b|n't\b|\bno\s\w",
    re.IGNORECASE,
)
BECAUSE = re.compile(r",?\s(?:because|since)\s", re.IGNORECASE)
CUE = re.compile(
    r"\W*(?:therefore|thus|so|hence|wait|actually|correction|in conclusion"
    r"|overall|consequently|as a result|in summary|based on|(?:we|i|one) (?:can |must |may )?conclude"
    r"|it (?:follows|can be concluded)|this means|which means|that means)\b",
    re.IGNORECASE,
)
HEADED = re.compile(r"\W*(?:verdict|conclusion|judge?ment|decision)\W*:\W*", re.IGNORECASE)
INCLINED = re.compile(r"\b(?:in the )?(?:(?P<yes>affirmative)|(?P<no>negative))\W*", re.IGNORECASE)
SHORT = 160
"""A text of one sentence that is no longer says all that it says: what it affirms or denies is its answer."""
CLAIM = re.compile(
    r"\W*(?:it|this|that|there|he|she|they|we|one|you|the|an?|[A-Z]\w+)\s(?:\w+\s){0,6}?"
    r"(?:would|could|can|is|are|was|were|does|do|did|has|have|had|will|should)(?:n't|\s?not|\s(?:be\s)?impossible|\s(?:be\s)?"
    r"unlikely|\s(?:be\s)?unable)\b"
)
"""A sentence whose main verb is denied."""
BRIEF = re.compile(
    r"[\s*_\"']*(?:that(?:'s|\sis)\s|it(?:'s|\sis)\s|oh,?\s)?(?:(?P<no>(?:definitely|absolutely|certainly|probably|surely|of"
    r"\scourse|likely)\snot|not\s(?:really|right|correct|at\sall|possible|likely)|nope|nah|never|no\sway|incorrect|wrong|unlikely)"
    r"|(?P<yes>definitely|absolutely|certainly|of\scourse|indeed|sure|yep|yeah|yup|correct|right))(?=\s*[,.!*]|\s*$)",
    re.IGNORECASE,
)
"""How a text may begin that says yes or no in another word."""
OPENING = re.compile(
    r"[\s*_#\"'(`]*(yes|no|true|false)\b(?=\s*[,.:;!*)\n\"'—–-]|\s*$|\s(?:because|since|it|they|he|she|the)\b)",
    re.IGNORECASE,
)


def commit(text: str, _choices: Sequence[str]) -> Found:  # noqa: PLR0911 (a ladder, from the surest sign to the last)
    """What the text commits to last, else the word it opens with, else what its conclusion says or denies."""
    text = text.replace("_", " ")  # `_yes_`: an underscore is markup here, and no letter
    stated = list(commitments(text))
    for rule, piece, *_ in stated:
        if answer := _stated(sentence(piece)):
            return Found(rule, answer, True)
    lines = list(conclusions(text[stated[0].start :] if stated else text))
    opening = OPENING.match(text)
    for line in lines[:2]:
        if (answer := _word(line, PLAIN)) and (CUE.match(line) or (len(line) < 120 and not opening)):
            return Found("conclusion", answer, True)
    if opening:
        return Found("opening", _name(opening[1].lower() in ("yes", "true")), True)
    for line in lines[:3]:
        if answer := _word(line, WORD):
            return Found("conclusion", answer, True)
    for line in lines[:3]:
        if CUE.match(line) and not DOUBT.search(line):
            return Found("prose", _name(DENIAL.search(line) is None), True)
    if not stated and len(lines) == 1 and len(text) <= SHORT and CLAIM.match(text) and not DOUBT.search(text):
        return Found("prose", "no", True)
    brief = None if stated else BRIEF.match(text) or LONE.fullmatch(HEADED.sub("", text[-SHORT:]))
    if brief:
        return Found("opening", _name(brief["yes"] is not None), True)
    answer = None if stated else last(text, ())
    return Found("last", answer, True) if answer else unread(stated)


def last(text: str, _choices: Sequence[str]) -> str | None:
    """The last yes, no, true or false."""
    for size in (100, WINDOW):
        tail = DOUBT.sub(" ", text[-size:])
        found = list(PLAIN.finditer(tail))
        if found and (found[-1].start() > 12 or len(text) <= size or size == WINDOW):
            return _named(found[-1])
    return None


def same(gold: str, answer: str) -> bool:
    left = _stated(gold)
    return left is not None and left == _stated(answer)


def _stated(piece: str) -> str | None:
    """The first plain yes or no of a piece, else its first judgement; None where it doubts before it says so."""
    if doubt := DOUBT.search(piece):
        plain = PLAIN.search(piece)
        return _named(plain) if plain and plain.start() < doubt.start() else None
    lone = LONE.fullmatch(piece) or INCLINED.fullmatch(piece)
    if lone:
        return _name(lone["yes"] is not None)
    return next(_words(piece, PLAIN), None) or next(_words(piece, WORD), None)


def _word(line: str, pattern: re.Pattern[str]) -> str | None:
    """The one judgement of a line; None where it doubts or gives both."""
    found = set(_words(BECAUSE.split(line)[0], pattern)) or set(_words(line, pattern))
    return found.pop() if len(found) == 1 and not DOUBT.search(line) else None


def _words(piece: str, pattern: re.Pattern[str]) -> Iterator[str]:
    for match in pattern.finditer(piece):
        yield _named(match)


def _named(match: re.Match[str]) -> str:
    return _name((match["yes"] is not None) != (match["not"] is not None))


def _name(positive: bool) -> str:
    return "yes" if positive else "no"
