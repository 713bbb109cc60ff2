"""Which kind an answer is, where nobody says so (the rule stands in docs/benchmarks.md)."""

import re
from collections.abc import Sequence

from stillroom.records import Kind

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER = re.compile(r"\(?([A-Za-z])[).]?")
AMOUNT = re.compile(
    r"[-+−~]?\s?[$€£¥₹]?\s?-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?"  # -$1,234.50
    r"(?:(?<=\d)(?:e[-+]?\d+|:\d\d|\s?/\s?\d+|\s\d+/\d+))?(?<=\d)"  # 1e5, 5:45, 3/4, 1 1/2
    r"(?:\s?(?:°[CFK]?|[%€£¥₹])|\s?[^\W\d_]{2,}|\s[^\W\d_])?"  # 60 km, 20 °C
    r"(?:[\s/.^²³-]+(?:[^\W\d_]+|(?<=\^)\d)){0,3}\.?"  # /h, p.m., square feet
)
WORDS = {"sqrt", "pi", "sin", "cos", "tan", "log", "ln", "exp", "infty"}
OPERATORS = re.compile(r"[-+*/^=<>√π∞(),\d]")


def infer(answer: str) -> Kind:
    """`boolean`, `math`, `numeric` or `text`, the first that fits in this order; algebra after numbers."""
    answer = answer.strip()
    if answer.lower().rstrip(".") in ("yes", "no", "true", "false"):
        return "boolean"
    if re.search(r"\\[A-Za-z({\[$%]|^\$.*\$$", answer):
        return "math"
    if AMOUNT.fullmatch(answer):
        return "numeric"
    return "math" if _algebra(answer) else "text"


def letter_of(answer: str, choices: Sequence[str]) -> str | None:
    """The letter that an answer gives, as such or as the text of one option."""
    texts = [choice.strip().lower() for choice in choices]
    if texts.count(answer.strip().lower()) == 1:
        return LETTERS[texts.index(answer.strip().lower())]
    match = LETTER.fullmatch(answer.strip())
    return match[1].upper() if match and match[1].upper() in LETTERS[: len(choices)] else None


def _algebra(answer: str) -> bool:
    """Symbols and single letters alone: `x^2 + 1`, `(1, 2)`, `3x`, `2 + sqrt(3)`."""
    words = re.findall(r"[^\W\d_]{2,}", answer)
    return (
        all(word.lower() in WORDS for word in words)
        and OPERATORS.search(answer) is not None
        and re.fullmatch(r"[\w\s+*/^=<>()\[\]{},.|!√π∞≤≥±−-]+", answer) is not None
    )
