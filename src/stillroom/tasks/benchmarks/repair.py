"""Mending what publishing did to a text or an answer: mojibake, golds cut at a brace, dressed-up numbers."""

import math
import re

from stillroom.tasks.benchmarks.notes import Notes

CP1252 = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
SUSPECT = re.compile(rf"[\u0080-\u00ff{CP1252}]{{2,}}")
MOJIBAKE = re.compile(r"[ÂÃâ][\u0080-\u00bf€‚„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|ï¿½|\ufffd")
NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)(?:/\d+)?|\d{1,2}:\d\d")


def clean(text: str, notes: Notes) -> str:
    """`text` with UTF-8 that was read as Windows-1252 or Latin-1 turned back, where that can be undone exactly."""
    mended = SUSPECT.sub(lambda match: _undone(match[0]), text)
    if mended != text:
        notes.mended("mojibake turned back")
    if MOJIBAKE.search(mended):
        notes.add("kept", "mojibake that cannot be turned back")
    return mended


def _undone(run: str) -> str:
    """One run of suspect characters, decoded as often as it was encoded."""
    try:
        once = b"".join(_byte(character) for character in run).decode()
    except UnicodeError:
        return run
    return SUSPECT.sub(lambda match: _undone(match[0]), once)


def _byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")


def boxed(solution: str) -> str | None:
    r"""What the last `\boxed{…}` or `\fbox{…}` of a solution holds, its braces balanced."""
    starts = [match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", solution)]
    if not starts:
        bare = re.findall(r"\\boxed\s+([^\s$]+)", solution)
        return bare[-1].rstrip(".") if bare else None
    depth, start = 1, starts[-1]
    for at in range(start, len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[at], 0)
        if depth == 0:
            return solution[start:at].strip()
    return None


def balanced(text: str) -> bool:
    """Whether every brace that opens is closed (escaped ones are sets, not groups, and are balanced alike)."""
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


def number(text: str) -> str | None:
    """A number without its dress (`$1,234.`, `~7.2`): decimal, fraction or time; None where it is none."""
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.strip()).lstrip("~$≈ ").rstrip(". ")
    return plain if NUMBER.fullmatch(plain) else None


def decimal(value: object) -> str:
    """A JSON number as people write it: 43.0 is 43, and no digit is lost."""
    number = float(str(value))
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no number")
    return str(int(number)) if number.is_integer() else repr(number)
