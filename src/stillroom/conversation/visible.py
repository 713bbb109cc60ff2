"""Text from a model or from a user, made harmless to look at: what would steer a terminal or a page is spelled out."""

import unicodedata

KEPT = "\n\t\u200c\u200d"
"""Line ends, tabs, and the joiners that some scripts are written with."""
STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control characters, format characters (which turn the direction of writing), lone surrogates, further line ends."""


def visible(text: str) -> str:
    """The text with every control character written as an escape, as in `\\x1b[2J`."""
    return "".join(_spelled(letter) if unicodedata.category(letter) in STEERING else letter for letter in text)


def _spelled(letter: str) -> str:
    if letter in KEPT:
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def shortened(text: str, longest: int) -> str:
    """One visible line of at most so many characters."""
    line = " ".join(visible(text[: 2 * longest]).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
