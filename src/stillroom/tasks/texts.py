"""The kind `text`: words that must be the gold words, but for case, articles, markup and full stops."""

import re
from collections.abc import Sequence

from stillroom.tasks.commitments import WINDOW, commitments, conclusions, sentence
from stillroom.tasks.found import NOTHING, Found
from stillroom.tasks.latex import unwrap

REASON = re.compile(r"(?<=\w),?\s(?:because|since|as)\s.*$", re.DOTALL)
ANNOUNCED = re.compile(r"^\W*(?:therefore|thus|so|hence|in conclusion)\b[,:]?\s*", re.IGNORECASE)


def commit(text: str, _choices: Sequence[str]) -> Found:
    """The sentence that the text commits to last; without a commitment the last sentence."""
    for rule, piece, *_ in commitments(text):
        if answer := _bare(sentence(piece)):
            return Found(rule, answer, True)
    concluded = last(text, ())
    return Found("conclusion", concluded, True) if concluded else NOTHING


def last(text: str, _choices: Sequence[str]) -> str | None:
    """The last sentence without the words that announce a conclusion."""
    line = next(conclusions(text[-WINDOW:]), "")
    return _bare(ANNOUNCED.sub("", line)) or None


def same(gold: str, answer: str) -> bool:
    return _plain(gold) in (_plain(answer), _plain(REASON.sub("", answer))) and _plain(gold) != ""


def _bare(piece: str) -> str:
    return unwrap(piece).strip(" \t\n*_`\"'“”‘’$.,;:")


def _plain(text: str) -> str:
    words = re.sub(r"[^\w%+/.-]+|_|\.(?!\d)", " ", unwrap(text).casefold())
    return re.sub(r"\b(?:the|an|a)\s(?=\w)", "", " ".join(words.split()))
