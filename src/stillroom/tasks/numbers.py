"""Numbers as people write them: `$1,234.50`, `-3 1/2`, `1.5 × 10^6`, `5 hours and 30 minutes`, `5:45`.

A `Reading` holds every value that its words can stand for; two readings agree when they share one. Units and
currencies are set aside, and a per cent sign is a unit: `10%` is 10, never 0.1. What stands in groups that are not of
three digits (`12,34`) is no number: nothing is guessed. This module does not know where in a text the answer stands.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from stillroom.tasks.units import COMPOUND, SCALES, in_both

Value = Fraction | int | tuple[str, str]
"""A number, or ("time", "5:45") or ("range", "5..7"), which equal only their like."""

LARGEST_EXPONENT = 400
LONGEST = 400
"""Digits of a number; a longer one is not an answer, and arithmetic on it would cost time."""

_CORE = r"\d+(?:,\d+)*(?:\.\d+)?|\.\d+"
NUMBER = re.compile(
    rf"""
    (?<![A-Za-z0-9.,^])(?<![A-Za-z0-9^][_{{])
    (?P<sign>(?<![A-Za-z0-9)\]}}%])[-+]\ ?(?=[$€£¥₹.\d])
      | (?:(?<=is\ )|(?<=:\ )|^)(?:minus|negative)\ (?=[$€£¥₹.\d]))?
    (?:[$€£¥₹]\ ?(?P<inner>-)?)?
    (?P<core>\d{{1,3}}(?:\ \d{{3}})+(?!\d|[.,:/]\d|\ \d)|{_CORE})
    (?:
      :(?P<minutes>\d{{1,2}})(?::\d\d)?(?!\d)
      | \ ?(?:[×x*]|\\times|\\cdot)\ ?10\ ?(?:\^|\*\*)\ ?[({{]?(?P<power>[-+]?\d{{1,5}})[)}}]?
      | e(?P<exponent>[-+]?\d{{1,5}})(?![\w.])
      | \ ?/\ ?(?P<below>\d+(?:\.\d+)?)(?![\d/.]*[/\d])
      | (?:\ |\ and\ |\ ?\+\ )(?P<top>\d+)/(?P<bottom>\d+)(?![\d/])
      | \ and\ (?:a|one)\ (?P<part>half|third|quarter)\b
      | (?:\ ?[-~]\ ?|\ to\ )[$€£¥₹]?(?P<end>\d+(?:\.\d+)?)(?![\d-])(?!\ ?[=*×/+])
    )?
    (?P<suffix>(?:st|nd|rd|th)\b|\ ?%
      | \ ?(?:hundred|thousand|million|billion|trillion|dozen|percent|cents?)\b
      | (?-i:[kKM])(?!\w))?
    """,
    re.VERBOSE | re.IGNORECASE,
)
PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}


class Reading(NamedTuple):
    values: tuple[Value, ...]
    """Empty where the digits are not grouped as a number's are, or are too many."""
    text: str
    start: int
    end: int
    ordinal: bool = False


def readings(text: str) -> Iterator[Reading]:
    """The numbers written in digits, from left to right."""
    at = 0
    while match := NUMBER.search(text, at):
        reading = _read(match, text)
        at = max(reading.end, match.end())
        yield reading


def agree(gold: Reading, answer: Reading) -> bool:
    """Whether the two can stand for one value; an endless decimal agrees with its rounding to two or more places."""
    if set(gold.values) & set(answer.values):
        return True
    return any(_rounded(a, b) for a in gold.values for b in answer.values)


def _read(match: re.Match[str], text: str) -> Reading:
    core, suffix = match["core"], (match["suffix"] or "").strip().lower()
    number = plain(core)
    place = (match[0], match.start(), match.end())
    if number is None:
        return Reading((), *place)
    if match["minutes"]:
        return Reading((("time", f"{number}:{match['minutes']}"),), *place)
    if match["end"]:
        return Reading((("range", f"{number}..{plain(match['end'])}"),), *place)
    whole = _combined(match, number)
    if whole is None:
        return Reading((), *place)
    sign = -1 if (match["sign"] or "+")[0] != "+" or match["inner"] else 1
    compound = None if suffix else COMPOUND.match(text, match.end())
    part = plain(compound[2]) if compound else None
    if compound and part is not None and (together := in_both(sign * whole, compound[1], part, compound[3])):
        return Reading(together, text[match.start() : compound.end()], match.start(), compound.end())
    values = (sign * whole, *_scaled(sign * whole, suffix))
    return Reading(values, *place, ordinal=suffix in ("st", "nd", "rd", "th"))


def _combined(match: re.Match[str], number: Fraction | int) -> Fraction | int | None:
    """The number with its power of ten, denominator or fraction part; None for a power too large or a zero below."""
    if shift := match["power"] or match["exponent"]:
        power = int(shift)
        return number * Fraction(10) ** power if abs(power) <= LARGEST_EXPONENT else None
    if match["below"]:
        below = plain(match["below"])
        return Fraction(number) / below if below else None
    if match["part"]:
        return number + Fraction(1, PARTS[match["part"].lower()])
    if match["bottom"]:
        top, bottom = plain(match["top"]), plain(match["bottom"])
        return number + Fraction(top) / bottom if bottom and top is not None else None
    return number


def _scaled(value: Fraction | int, suffix: str) -> tuple[Fraction | int, ...]:
    """What a word behind the number also makes of it: `1.5 million` is 1.5 or 1,500,000; 50 cents are $0.50."""
    if suffix in SCALES:
        return (value * SCALES[suffix],)
    return (Fraction(value) / 100,) if suffix.startswith("cent") else ()


def plain(core: str) -> Fraction | int | None:
    """The value of digits with separators; None where a group between separators is not of three digits."""
    if core.isdigit() and len(core) <= LONGEST:
        return int(core)
    if len(core) > LONGEST:
        return None
    whole, _, decimals = core.replace(" ", ",").partition(".")
    first, *groups = whole.split(",")
    if groups and (len(first) > 3 or first.startswith("0") or any(len(group) != 3 for group in groups)):
        return None
    digits = first + "".join(groups)
    try:
        return Fraction(f"{digits or 0}.{decimals}") if decimals else int(digits)
    except ValueError:  # digits of another script, mixed or raised
        return None


def _rounded(a: Value, b: Value) -> bool:
    if isinstance(a, tuple) or isinstance(b, tuple):
        return False
    short, long = sorted((Fraction(a), Fraction(b)), key=_places)
    places = _places(short)
    if _places(long) < 6 or abs(long) > 1e300:
        return False
    if _places(long) >= 8 and abs(short - long) <= abs(long) / 10**9:
        return True  # the noise of floating point
    return places >= 2 and round(long, places) == short


def _places(value: Fraction) -> int:
    """Decimal places of a terminating number (up to 30), 99 for one without end."""
    below, twos, fives = value.denominator, 0, 0
    while below % 2 == 0 and twos < 30:
        below, twos = below // 2, twos + 1
    while below % 5 == 0 and fives < 30:
        below, fives = below // 5, fives + 1
    return max(twos, fives) if below == 1 else 99
