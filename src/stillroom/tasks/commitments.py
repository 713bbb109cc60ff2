"""Where a text commits to an answer: after the asked-for words, in a box, behind `####`, or in its last sentences.

The last commitment counts. What a text says after it has begun the next question of a few-shot prompt is not its own.
This module does not know what kind of answer is sought: it hands on pieces of text, the last first.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

WINDOW = 2000
"""An answer lies within this many characters of what announces it; more is never searched, so bait costs nothing."""
MANY = 24
"""Announcements of one form that are looked at, from the end of a text."""

_LINK = r"(?:is|are|was|will be|would be|would then be|should be|must be|has to be|becomes|comes out to be|equals)\b"
_BETWEEN = (
    r"(?:\s\([^()\n]{0,60}\)|,?\s(?:to|for|in|of|on|here|we|i|from|after|which|that|then|therefore|thus|hence|option"
    r"|choice|letter|value|key|above|below|you|as|based|would|should)\b(?:[^\n.:=?]|\.\d){0,160}?)?"
)
ANSWER = re.compile(
    rf"answers?(?!\s(?:choices|options)\b)['\"”*_]{{0,3}}{_BETWEEN}\s{{0,2}}[*_]{{0,3}}\s?(?:{_LINK}|:|=|->|→)"
    r"|answers?[ *_#.]{0,5}(?=\n)|answer[.-]?is\b[.-]?|answeris"
)
CHOSEN = re.compile(rf"(?:option|choice|statement|response)\s?(?:[a-z]+\s){{0,8}}?(?:{_LINK}|:)")
SHORT = re.compile(r"ans[.:]")
ANCHORS = (("answer", ANSWER), ("option", CHOSEN), ("choice", CHOSEN), ("ans", SHORT))
BEFORE_CHOSEN = re.compile(r"\b(?:correct|best|right|answer|appropriate|suitable|likely|closest|final|my)\s(?:\w+\s)?$")
HEADING = re.compile(r"[\s#*_>\d.)\-]*(?:(?:the|my|and|your|final|correct|short)\s)*$")
ECHO = re.compile(
    r"(?:^|\n)[ \t]*(?:#{1,4}[ \t]*|\*\*)?(?:q|question|problem|human|user|instruction|input|example|exercise)"
    r"[ \t]{0,4}\d{0,4}[ \t]{0,4}(?:\*\*)?[ \t]{0,4}:"
    r"|\n[ \t]*(?:here(?:'s|\sis)|let(?:'s|\sus)\s(?:try|solve|do)|now)\s(?:another|a\snew|a\ssimilar|the\snext)\s",
    re.IGNORECASE,
)
TAG = re.compile(r"(?:the answer is:?\s*)?<answer>\s*(?:the answer is:?)?", re.IGNORECASE)
TOKEN = re.compile(r"<\|(?:end|eot|im|start|assistant|user)[a-z_]*\|>(?:assistant)?|</s>")
"""What a model writes to end its turn, where decoding has left it in the text."""
DISPLAYS = {"\\[": "\\]", "$$": "$$"}
ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s?")
SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\bMrs\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?:[*_\"')\]]{0,3})\s+(?=[\"'(*_$\\A-Z])|\n+"
)
ASIDE = re.compile(
    r"\s*(?:#|\*\*)*\s*\(?(?:notice\b|note\b|beware|is (?:this|that)\b|check\b|verif|let me know|please|i hope"
    r"|feel free|step \d+\W*$|this (?:shows|is bec)|if you|hope )",
    re.IGNORECASE,
)


class Commitment(NamedTuple):
    rule: str
    text: str
    """For a box its content, otherwise the rest of the line or, where that is empty, the next line."""
    start: int
    end: int = 0
    """Where a box closes."""


ONE_WORD = re.compile(r"\W*(?:yes|no|true|false|[a-j]|[$€£]?-?\d[\d.,]{0,20}%?(?:\s\w{1,20})?)\W*", re.IGNORECASE)
"""An answer and nothing else."""
RETRACTION = re.compile(
    r"(?:^|[.!?…]\s+|\n)(?:but\s|oh,?\s|hmm,?\s)?"
    r"(?:wait\b|actually,|correction\b|oops|sorry,|no,\s(?:it|that|the)\b|on second thought|i made a mistake)",
    re.IGNORECASE,
)
WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""Full-width letters, digits and signs, as the narrow ones that they stand for."""
IS_WIDE = re.compile("[\uff01-\uff5e]")


def own_words(text: str) -> str:
    """The text without silent thoughts that end before it and without what belongs to other questions.

    A text that opens with a question repeats its prompt: its last block counts. Any other text is an answer from its
    first character: from the first new question after a commitment on, it is an echo of the few-shot prompt.
    """
    if not text.isascii() and IS_WIDE.search(text):
        text = text.translate(WIDE)
    tail = text.rpartition("</think>")[2]
    text = tail if tail.strip() else text
    if "[asy]" in text:
        first, *drawings = text.split("[asy]")
        text = first + "".join(drawing.partition("[/asy]")[2] for drawing in drawings)
    if "</answer>" in text or "<answer>" in text:
        text = TAG.sub("\nThe answer is ", text).replace("</answer>", "\n")
    if "<|" in text or "</s>" in text:
        text = next((part for part in TOKEN.split(text) if part.strip()), "")
    asks = ":" in text or "nother " in text or " next " in text
    marks = [match.start() for match in ECHO.finditer(text)] if asks else []
    if not marks:
        return text
    if not text[: marks[0]].strip():
        return text[marks[-1] :]
    for mark in marks[:MANY]:
        if ONE_WORD.fullmatch(text, 0, mark) or next(commitments(text[:mark]), None):
            return text[:mark]
    return text


def commitments(text: str) -> Iterator[Commitment]:
    """What the text commits to by the rules `asked`, `boxed` and `####`, the last first."""
    low = _lowered(text)
    found = [*_asked(text, low), *_boxed(text), *_hashed(text)]
    found.sort(key=lambda commitment: -commitment.start)
    yield from found


def _lowered(text: str) -> str:
    """The text in lower case, each character in its old place."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(c.lower() if c.isascii() else c for c in text)


def _asked(text: str, low: str) -> Iterator[Commitment]:
    for word, pattern in ANCHORS:
        end = len(low)
        for _ in range(MANY):
            end = low.rfind(word, 0, end)
            if end < 0:
                break
            match = pattern.match(low, end)
            if match and _announces(pattern, low[max(0, end - 40) : end], match):
                yield Commitment("asked", rest(text, match.end()), end)


def _announces(pattern: re.Pattern[str], before: str, match: re.Match[str]) -> bool:
    """Whether the words before make it an announcement: a heading stands alone, an option is called right."""
    if pattern is CHOSEN:
        return BEFORE_CHOSEN.search(before) is not None
    if (before[-1:].isalpha() and not before.endswith("the")) or before.endswith("long "):
        return False  # a long answer follows its short one, and explains it
    alone = match[0].rstrip(" *_#.").endswith(("answer", "answers"))
    return not alone or HEADING.match(before.rpartition("\n")[2]) is not None


def rest(text: str, start: int) -> str:
    """From `start` to the end of its line, or the next line that says something; a displayed formula to its end."""
    piece = text[start : start + WINDOW]
    lead = len(piece) - len(piece.lstrip(" \t\r\n*_:#>`\"'“,-"))
    while lead and piece[lead - 1] in "-'\"":
        lead -= 1
    body = piece[lead:]
    if match := ENVIRONMENT.match(body):
        return match[0] + body[match.end() :].partition("\n")[0].rstrip()
    for opening, closing in DISPLAYS.items():
        if body.startswith(opening) and (end := body.find(closing, 2)) > 0:
            return body[: end + len(closing)]
    return body.partition("\n")[0].strip()


def _boxed(text: str) -> Iterator[Commitment]:
    end = len(text)
    for _ in range(MANY):
        end = max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end)) if "\\" in text else -1
        if end < 0:
            return
        match = BOX.match(text, end)
        if match is not None:
            content = braced(text, match.end())
            if content is not None:
                yield Commitment("boxed", content, end, match.end() + len(content) + 2)


def braced(text: str, start: int) -> str | None:
    """What stands in the braces that open at `start`, or the one word that follows; None where they never close."""
    if text[start : start + 1] != "{":
        word = re.match(r"[^\s$\\{}]{1,40}", text[start : start + 40])
        return word[0].rstrip(".,") if word else None
    depth = 0
    for at in range(start, min(len(text), start + WINDOW)):
        depth += {"{": 1, "}": -1}.get(text[at], 0) if text[at - 1] != "\\" else 0
        if depth == 0:
            return text[start + 1 : at].strip()
    return None


def _hashed(text: str) -> Iterator[Commitment]:
    end = len(text)
    for _ in range(MANY):
        end = text.rfind("####", 0, end)
        if end < 0:
            return
        line = rest(text, end + 4)
        if not line[:12].lower().startswith(("final", "answer", "the answer", "step", "conclusion", "solution")):
            yield Commitment("####", line, end)


def sentence(text: str) -> str:
    """The first sentence of a piece of text."""
    return SENTENCE_END.split(text, maxsplit=1)[0] if text else text


def corrected(text: str, start: int) -> str:
    """What the text says after it has taken back what it committed to at `start`; empty where it has not."""
    tail = text[start : start + WINDOW]
    match = RETRACTION.search(tail)
    return tail[match.end() :] if match else ""


def conclusions(text: str) -> Iterator[str]:
    """The last sentences of a text that state something, the last first: no questions, notes or empty steps."""
    tail = text[-WINDOW:]
    for line in reversed(SENTENCE_END.split(tail)):
        stripped = line.strip()
        if stripped and not stripped.endswith("?") and not ASIDE.match(stripped):
            yield stripped
