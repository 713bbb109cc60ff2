"""LaTeX and markup taken off an answer: what is left is plain enough to compare by eye, or to hand to a parser.

Everything here is a rewriting of short strings; no value is computed.
"""

import re
from functools import lru_cache

CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-", "\u00a0": " ", "\u2009": "",
        "\u202f": "", "\u2007": " ",
        "×": "×", "⋅": "*", "·": "*", "∙": "*", "∗": "*", "÷": "/", "⁄": "/", "∕": "/", "’": "'", "“": '"', "”": '"',
        "，": ",",
        "：": ":", "％": "%", "＄": "$", "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3",
        "\u200b": "", "\u2060": "", "\ufeff": "", "\\": "\\",
    }
)  # fmt: skip
SYMBOLS = str.maketrans(
    {
        "π": "\\pi ", "∞": "\\infty ", "∪": "\\cup ", "∩": "\\cap ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ",
        "±": "\\pm ",
        "°": "", "∈": "\\in ", "θ": "\\theta ", "×": "\\times ", "√": "\\sqrt", "≈": "\\approx ", "∅": "\\emptyset ",
        "²": "^2", "³": "^3", "⁴": "^4", "⁵": "^5", "₂": "_2", "₃": "_3", "₄": "_4", "₅": "_5", "₆": "_6", "₇": "_7",
        "₈": "_8", "₉": "_9",
    }
)  # fmt: skip
SPACES = re.compile(
    r"\\(?:[,;:!> ]|quad\b|qquad\b|thinspace\b|phantom\{[^{}]*\}|hspace\{[^{}]*\})|~|\{(?=[,:]\})|(?<=[,:])\}(?=\d)"
)
GROUPED = re.compile(r"(?<=\d)\{,\}(?=\d)|(?<=\d),\\!\s*(?=\d{3})")
SIZES = re.compile(r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|displaystyle|textstyle|limits|rm|bf|it)(?![a-zA-Z])\s?")
FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([^{}]*?)\s*\}|(\d))\s*(?:\{\s*([^{}]*?)\s*\}|(\d))")
WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|texttt|mathrm|mathbf|mathit|mathsf|operatorname|mbox|hbox|emph|underline"
    r"|boldsymbol|bm|boxed|fbox)\s?\{([^{}]*)\}"
)
BRACKETS = re.compile(r"\\[()\[\]]")


def unwrap(piece: str) -> str:
    """A sentence with its LaTeX wrappers off and its fractions as `a/b`; markdown is left in place."""
    if not piece.isascii():
        piece = piece.translate(CHARACTERS)
    if "\\" not in piece:
        return piece.replace("{,}", ",") if "{,}" in piece else piece
    if "{,}" in piece or "\\!" in piece:
        piece = GROUPED.sub(",", piece).replace("\\!", "")
    piece = SPACES.sub(" ", piece)
    piece = SIZES.sub("", piece).replace("\\$", "$").replace("\\%", "%").replace("^\\circ", " degrees")
    if "frac" in piece:
        piece = FRACTION.sub(_slash, piece)
    for _ in range(2):
        piece = WRAPPED.sub(_inside, piece) if "{" in piece else piece
    return BRACKETS.sub("", piece).replace("\\times", "×").replace("\\cdot", "*").replace("\\approx", "≈")


def _inside(match: re.Match[str]) -> str:
    return match[1]


def _slash(match: re.Match[str]) -> str:
    """`3\\frac{1}{2}` is a mixed number, so the fraction keeps its distance."""
    return f" {match[1] or match[2]}/{match[3] or match[4]} "


MATH = re.compile(r"^(?:\$\$?|\\\(|\\\[)\s*(.*?)\s*(?:\$\$?|\\\)|\\\])$", re.DOTALL)
SHORTHAND = (
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d)"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s*(\d|[a-z]|\\pi)(?![a-z])"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt\s*(\d+)"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\a-z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\a-z])pi(?![a-z])"), r"\\pi "),
    (re.compile(r"\\(?:bmatrix|Bmatrix|vmatrix)"), r"\\pmatrix"),
    (re.compile(r"\{[bBv]matrix\}"), "{pmatrix}"),
    (re.compile(r"\\begin\{array\}\s*\{[clr|]*\}(.*?)\\end\{array\}", re.DOTALL), r"\\begin{pmatrix}\1\\end{pmatrix}"),
    (re.compile(r"[\[(]\s*(\\begin\{pmatrix\}.*?\\end\{pmatrix\})\s*[\])]", re.DOTALL), r"\1"),
    (re.compile(r"\^\s*\{?\s*(?:\\circ|o)\s*\}?|\\degree|\\deg(?![a-z])"), ""),
    (re.compile(r"\\?%|\b(?:percent|per cent)\b"), ""),
    (re.compile(r"\\leq(?![a-z])|<="), r"\\le "),
    (re.compile(r"\\geq(?![a-z])|>="), r"\\ge "),
    (re.compile(r"\\neq(?![a-z])|(?<=\s)!=(?=\s)"), r"\\ne "),
    (re.compile(r"\\(?:dots|ldots|cdots)"), "..."),
    (re.compile(r"\\varnothing|\\\{\s*\\\}"), r"\\emptyset"),
    (re.compile(r"\\mathbb\s*\{?([A-Z])\}?"), r"\1"),
    (re.compile(r"\\cdot(?![a-z])|\\times(?![a-z])|\*"), r"\\cdot "),
    (re.compile(r"([\^_])\s*\{\s*([\w])\s*\}"), r"\1\2"),
    (re.compile(r"\\sqrt\[(?:2)\]"), r"\\sqrt"),
    (re.compile(r"^0(?=\d\s?:)"), ""),
)
CONNECTED = re.compile(
    r"\s*(?:,|;)?\s*(?:\\(?:text|mbox|textrm|mathrm)\s?\{\s*,?\s*(?:and|or)\s*\}"
    r"|(?<![a-z])(?:and|or)(?![a-z]))\s*(?:\\ )?"
)
UNIT = re.compile(
    r"(?<=[\d})i])\s*\\(?:text|mbox|textrm|mathrm|textnormal|textit|textbf|hbox|operatorname)"
    r"\s?\{\s*[^{}]*\}(?:\s*\^\s*(?:\d|\{\d\}))?\.?"
)
PLAIN_UNIT = re.compile(r"^(\S*[\d})])\s+(?!and\b|or\b|to\b)(?:[a-zA-Z][a-zA-Z./']+\s?)+(?:\^\s*\{?\d\}?)?\.?$")
GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d])|(?<![\d.,])\d{1,3}(?:\ \d{3})+(?![\d.])")
ROOT = re.compile(r"√\s?\(?(\d+(?:\.\d+)?)\)?")
BASE = re.compile(r"(\d+)\s(?:in\s)?base[\s-](\d+)$")
MONEY = re.compile(r"\\?[$€£](?=\s?[\d.-])|(?<=\d)\\?[$€£]|\\(?:pounds|text\{USD\})")


@lru_cache(maxsize=8192)
def canonical(answer: str) -> str:
    """One spelling of an answer: wrappers, units, sizes, spaces and the separators of thousands are gone."""
    text = ROOT.sub(r"\\sqrt{\1}", BASE.sub(r"\1_\2", answer.strip()))
    text = text.translate(CHARACTERS).translate(SYMBOLS).strip(" \t\n`*").rstrip(".")
    for _ in range(2):
        if (match := MATH.match(text)) and "$" not in match[1]:
            text = match[1]
        text = re.sub(r"^\\(?:boxed|fbox)\s?\{(.*)\}$", r"\1", text, flags=re.DOTALL)
    text = SIZES.sub("", GROUPED.sub(",", text)).replace("\\!", "").replace("{,}", ",")
    text = MONEY.sub("", CONNECTED.sub(",", text)).replace("$", "")
    text = re.sub(r"(?<!\\)\\[,;:> ]|\\q?quad|~", " ", text)
    text = PLAIN_UNIT.sub(r"\1", UNIT.sub("", text).strip())
    for _ in range(2):
        text = WRAPPED.sub(r"\1", text)
    for pattern, spelling in SHORTHAND:
        text = pattern.sub(spelling, text)
    if not re.match(r"[\[({\\]", text) or text.startswith("\\frac"):
        text = GROUPS.sub(lambda match: re.sub(r"[, ]", "", match[0]), text)
    return re.sub(r"\s+", " ", text).strip().rstrip(" .,;")


def tight(text: str) -> str:
    """Without blanks, except where they part words or a command from its letter."""
    return re.sub(r"(?<=[^\w])\s+|\s+(?=[^\w])|(?<=\d)\s+(?=[a-zA-Z\\])", "", text)


def split(text: str, separators: str = ",;") -> list[str]:
    """The parts of a list, at separators outside all brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character in separators and depth <= 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]
