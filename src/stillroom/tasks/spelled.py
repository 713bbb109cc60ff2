"""Numbers in words: `twenty-five`, `three hundred and six`, `two and a half`, `three quarters`."""

import re
from collections.abc import Iterator
from fractions import Fraction

from stillroom.tasks.numbers import PARTS, Reading

UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = {word: n for n, word in enumerate(UNITS)} | {word: 20 + 10 * n for n, word in enumerate(TENS)}
POWERS = {"hundred": 100, "thousand": 1000, "million": 10**6}
_WORD = "|".join(sorted((*WORDS, *POWERS), key=len, reverse=True))
_PART = "|".join(sorted(PARTS, key=len, reverse=True))
WORD = re.compile(
    rf"""
    \b(?P<minus>minus\ |negative\ )?
    (?:(?P<half>(?:a\ |one\ )?half)
      | (?P<run>(?:a\ (?=hundred|thousand|million))?(?:{_WORD})\b
          (?:(?:[\ -]|(?<=hundred)\ and\ |(?<=thousand)\ and\ )(?:{_WORD})\b)*)
        (?:\ and\ (?:a|one)\ (?P<part>{_PART})\b|[\ -](?P<below>{_PART})\b)?
    )\b(?!\ of\b|-)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def worded(text: str) -> Iterator[Reading]:
    """The numbers written in words: `twenty-five`, `three hundred and six`, `two and a half`, `three quarters`."""
    for match in WORD.finditer(text):
        value = Fraction(1, 2) if match["half"] else _sum(re.split(r"[ -]", match["run"].lower()))
        if value is None:
            continue
        if match["part"]:
            value += Fraction(1, PARTS[match["part"].lower()])
        if match["below"]:
            value /= PARTS[match["below"].lower()]
        yield Reading((-value if match["minus"] else value,), match[0], match.start(), match.end())


def _sum(words: list[str]) -> Fraction | None:
    """The value of number words in their order; None where they are several numbers in a row."""
    total = below = 0
    for word in words:
        if word in POWERS:
            below = (below or 1) * POWERS[word]
            total, below = (total + below, 0) if word != "hundred" else (total, below)
        elif word in WORDS:
            if below % 100 and not (below % 10 == 0 and below % 100 >= 20 and WORDS[word] < 10):
                return None
            below += WORDS[word]
    return Fraction(total + below)
