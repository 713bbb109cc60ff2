"""The kind `choice`: a letter in any dress, or the text of an option."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from stillroom.tasks.commitments import WINDOW, commitments, conclusions, corrected, sentence
from stillroom.tasks.found import Found, unread
from stillroom.tasks.latex import unwrap
from stillroom.tasks.numbers import agree, readings

MARK = re.compile(r"^\s*[(\[]?([A-Za-z])\s*[).:\]]\s*")
DRESSED = re.compile(
    r"[(\[{]\s?[*_]{0,2}([A-Za-z])[*_]{0,2}\s?[)\]}]"  # (B)
    r"|(?<![\w'(])[*_]{0,3}([A-Z])[*_]{0,2}(?=\)|\.(?:\s|$|\*)|:|\*\*|\s*$|,|;|\s[-–—]\s)"  # B)  B.  B:  **B**
    r"|\b(?i:option|choice|answer|letter)s?\s?[:\"'(*_]{0,4}([A-Z])\b(?!['’])",  # option B
    re.MULTILINE,
)
LEADING = re.compile(
    r"[\s*_\"'“‘`:$#-]*(?:[(\[]?(?:option|choice|letter|answer)\s?[:\"'*_]{0,3})?"
    r"(?:[(\[{]\s?[*_]{0,2}([A-Za-z])[*_]{0,2}\s?[)\]}]|[\"'“‘`*_]{0,3}([A-Z])(?!\w|['’]\w)|([a-z])(?=[).:]|\s*$))",
    re.IGNORECASE,
)
AFFIRMED = re.compile(
    r"(?:\b(?:option|choice|answer)\s)?[*_]{0,2}(?:\(([A-Za-z])\)|\b([A-Z])\b\)?)[*_\"'”’]{0,2}(?:[:.)]?\s[^.\n()]{0,120}?)?,?\s"
    r"(?:is|would be|must be|seems|appears to be|provides|represents|best|makes)\s(?:\w+\s){0,3}?"
    r"(?:correct|right|best|answer|appropriate|accurate|most|closest|true|likely|solution)\b"
    r"(?!\s(?:because|since)\sit\sis\snot)",
)
NEGATED = re.compile(
    r"\b(?:not|isn't|incorrect|wrong|false|eliminate|rule out|ruled out|neither|nor|cannot be)\b", re.IGNORECASE
)
BUT = re.compile(r"\b(?:but|however)\b,?\s", re.IGNORECASE)
PICKED = re.compile(
    r"\b(?:it(?:'s|\sis|\swould\sbe|\smust\sbe)|choose|pick|select|go(?:ing)?\swith)\s(?:option\s|choice\s)?"
    r"([B-J]|A(?=[,.;:]|\s(?:because|since|as|is)\b|\s*$))(?![\w'’])",
)
ALSO = re.compile(
    r"\W{0,3}(?:,|/|&|or|and|,\s?and|,\s?or)\s?(?:option\s|choice\s)?[(\[*]{0,3}([A-J])(?![\w'’])[)\]*]{0,3}"
)
ARTICLE = re.compile(r"\s+(?!(?:because|since|as|is|and|or|due|which|so|but|not|for|with|based|in|on)\b)[a-z]{2,}")
LISTING = re.compile(
    r"^\W{0,4}(?:answer\s)?(?:options|choices)\b[\s:*_]{0,8}\(?a[).:].{0,400}\bb[).:].*(?:\n\s{0,4}\(?[c-j][).:].*){0,8}",
    re.IGNORECASE | re.MULTILINE,
)
"""The options themselves, repeated."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def commit(text: str, choices: Sequence[str]) -> Found:
    """The letter, or the option's text, that the text commits to last."""
    options = Options.of(choices)
    stated = list(commitments(text))
    found = [(c.start, c.rule, letter) for c in stated if (letter := named(options, c.text))]
    after = max((at for at, _, _ in found), default=len(text) - 3 * WINDOW)
    found += [(at, "asked", letter) for at, letter in _affirmed(text, max(0, after), options)][-1:]
    if stated:
        for line in conclusions(corrected(text, stated[0].start)):
            if letter := _only(unwrap(line), options):
                return Found("conclusion", letter, True)
    if found:
        _, rule, letter = max(found)
        return Found(rule, letter, True)
    tail = text[stated[0].start :] if stated else text  # what came before an unreadable commitment was working
    tail = LISTING.sub("", tail)
    for line in conclusions(tail):
        letter = _only(unwrap(line), options)
        if letter:
            return Found("conclusion", letter, True)
    letter = last(tail, choices)
    return Found("last", letter, True) if letter else unread(stated)


def last(text: str, choices: Sequence[str]) -> str | None:
    """The last letter that is dressed as one."""
    options = Options.of(choices)
    tail = LISTING.sub("", text[-WINDOW:])
    for window in (tail[-100:], tail):
        found = list(_dressed(window, options))
        if found and (window is tail or found[-1][0] > 0):
            return found[-1][1]
    return options.stated(tail)


def same(gold: str, answer: str, choices: Sequence[str]) -> bool:
    options = Options.of(choices)
    return (named(options, gold) or gold.strip()) == (named(options, answer) or answer)


@lru_cache(maxsize=1024)
def named(options: "Options", piece: str) -> str | None:
    """`Options.read`, remembered: most answers are one of a few letters in one of a few dresses."""
    return options.read(piece)


def _dressed(text: str, options: "Options") -> Iterator[tuple[int, str]]:
    for match in DRESSED.finditer(text):
        letter = next(group for group in match.groups() if group).upper()
        if letter in options.letters:
            yield match.start(), letter


def _affirmed(text: str, start: int, options: "Options") -> Iterator[tuple[int, str]]:
    """`(B) is the correct answer`: the letter stands before what says so."""
    for match in AFFIRMED.finditer(text, start):
        turned = AFFIRMED.match(BUT.split(match[0])[-1])  # `both A and B are possible, but B is the best answer`
        letter = ((turned or match)[1] or (turned or match)[2]).upper()
        if letter in options.letters and not NEGATED.search(match[0]):
            yield match.start(), letter


def _only(line: str, options: "Options") -> str | None:
    """The one letter of a concluding line, or the one option that it states; a line that rules out tells nothing."""
    lead = LEADING.match(line)
    if lead and (len(line) <= 3 or not line[lead.end() :].strip(" .*_`\"'")):
        letter = next(group for group in lead.groups() if group).upper()
        return letter if letter in options.letters else None
    if NEGATED.search(line):
        return None
    if (picked := PICKED.search(line)) and picked[1] in options.letters:
        return picked[1]
    found = {letter for _, letter in _dressed(line, options)}
    return found.pop() if len(found) == 1 else options.stated(line)


class Options:
    """The letters that can be chosen, and what stands behind each of them where that is known."""

    def __init__(self, choices: Sequence[str]) -> None:
        marks = [MARK.match(choice) for choice in choices]
        marked = bool(choices) and all(m and m[1].upper() == LETTERS[i] for i, m in enumerate(marks))
        self.texts = [plain(MARK.sub("", choice) if marked else choice) for choice in choices]
        self.letters = LETTERS[: len(choices)] if choices else LETTERS[:10]

    @staticmethod
    @lru_cache(maxsize=1024)
    def _of(choices: tuple[str, ...]) -> "Options":
        return Options(choices)

    @staticmethod
    def of(choices: Sequence[str]) -> "Options":
        return Options._of(tuple(choices))

    def read(self, piece: str) -> str | None:
        """The letter that a piece of text opens with or has in brackets, or whose text it gives."""
        whole = plain(piece)
        if whole in self.texts and self.texts.count(whole) == 1:
            return self.letters[self.texts.index(whole)]
        piece = unwrap(piece)
        match = LEADING.match(piece)
        if match:
            letter = next(group for group in match.groups() if group).upper()
            bare = match[2] is not None or match[3] is not None
            if letter in self.letters and not (bare and self._word(letter, piece, match.end())):
                return ",".join([letter, *self._others(piece, match.end())])
        line = sentence(piece)
        if stated := self.stated(line, opening=True):
            return stated
        found = [letter for at, letter in _dressed(line, self) if not NEGATED.search(line[max(0, at - 25) : at])]
        return found[0] if found else self.stated(line) or self._valued(line)

    def _valued(self, line: str) -> str | None:
        """The letter of the one option that is worth the one number of the line: `$12.00` for `$12`."""
        said = list(readings(unwrap(line)))
        if len(said) != 1 or not all(any(map(str.isdigit, text)) for text in self.texts):
            return None
        equal = [
            letter
            for letter, text in zip(self.letters, self.texts, strict=False)
            if [True for reading in readings(text) if agree(reading, said[0])] and len(list(readings(text))) == 1
        ]
        return equal[0] if len(equal) == 1 else None

    def _others(self, piece: str, end: int) -> list[str]:
        """The letters that stand beside the first as equals: `(A) or (B)` is not a choice of A."""
        others = []
        while match := ALSO.match(piece, end):
            others.append(match[1].upper())
            end = match.end()
        return others

    def _word(self, letter: str, piece: str, end: int) -> bool:
        """Whether a bare `A` or `I` is a word of the sentence, not the letter of an option."""
        if letter not in "AI" or not ARTICLE.match(piece, end):
            return False
        at = self.letters.index(letter)
        behind = plain(piece[end:])
        return not (at < len(self.texts) and self.texts[at] and behind.startswith(self.texts[at]))

    def stated(self, line: str, *, opening: bool = False) -> str | None:
        """The letter of the one option whose text stands in the line (or opens it); the longest one wins."""
        words = f" {plain(line)} "
        found = [
            (len(text), letter)
            for letter, text in zip(self.letters, self.texts, strict=False)
            if text
            and self.texts.count(text) == 1
            and (words.startswith(f" {text} ") if opening else f" {text} " in words)
        ]
        if not found:
            return None
        _, letter = max(found)
        longest = self.texts[self.letters.index(letter)]
        rivals = [r for _, r in found if r != letter and self.texts[self.letters.index(r)] not in longest]
        return letter if opening or not rivals else None


@lru_cache(maxsize=8192)
def plain(text: str) -> str:
    """Words and numbers only, in lower case and without articles, so that spelling does not matter."""
    words = re.sub(r"(?<=\d),(?=\d{3})", "", unwrap(text).lower())
    words = re.sub(r"[^\w.%/^*+=√-]+|\.(?!\d)|_|(?<=\s)[-*](?=\s)", " ", words)
    return re.sub(r"\b(?:the|an|a)\s", "", " ".join(words.split())).strip(" *")
