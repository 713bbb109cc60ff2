"""Words behind a number that scale it (`1.5 million`), and quantities in two units (`5 hours and 30 minutes`)."""

import re
from fractions import Fraction

SCALES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "k": 1000,
    "m": 10**6,
}
RATIOS = {
    ("hour", "minute"): 60, ("minute", "second"): 60, ("year", "month"): 12, ("day", "hour"): 24, ("week", "day"): 7,
    ("dollar", "cent"): 100, ("foot", "inch"): 12, ("pound", "ounce"): 16, ("meter", "centimeter"): 100,
    ("kilogram", "gram"): 1000, ("kilometer", "meter"): 1000, ("yard", "foot"): 3,
}  # fmt: skip
SHORT = {
    "hr": "hour", "h": "hour", "min": "minute", "m": "minute", "sec": "second", "s": "second", "feet": "foot",
    "ft": "foot", "inche": "inch", "in": "inch", "lb": "pound", "oz": "ounce", "cm": "centimeter", "kg": "kilogram",
    "g": "gram", "km": "kilometer",
}  # fmt: skip
COMPOUND = re.compile(r"\ ?([a-z]+)\.?,?\ (?:and\ )?(\d+(?:\.\d+)?)\ ?([a-z]+)", re.IGNORECASE)
"""What may follow a number: its unit, a second number, and the unit of that."""


def in_both(
    value: Fraction | int, unit: str, part: Fraction | int, smaller: str
) -> tuple[Fraction, Fraction | int] | None:
    """`5 hours and 30 minutes`, in either of its units; None where the second is no part of the first."""
    ratio = RATIOS.get((_name(unit), _name(smaller)))
    return (value + Fraction(part) / ratio, value * ratio + part) if ratio else None


def _name(word: str) -> str:
    name = word.lower().rstrip("s") or word.lower()
    return SHORT.get(name, SHORT.get(word.lower(), name))
