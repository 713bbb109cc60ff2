"""The kind `math`: an answer as a formula, a list, an interval, a matrix, or a word.

What is plainly equal or different is decided in `equality.py`. All else goes to the library math-verify in another
process (`workers.py`), since no pure Python can be stopped half-way.
"""

import re
from collections.abc import Sequence

from stillroom.tasks import workers
from stillroom.tasks.commitments import WINDOW, Commitment, commitments, conclusions, sentence
from stillroom.tasks.equality import LONGEST, plainly
from stillroom.tasks.found import Found, unread
from stillroom.tasks.latex import canonical
from stillroom.tasks.numbers import readings

FORMULA = re.compile(r"(?<!\\)\$\$?([^$]{1,600}?)(?<!\\)\$\$?|\\\((.{1,600}?)\\\)|\\\[(.{1,600}?)\\\]", re.DOTALL)
BESIDE = re.compile(
    r"[\s$,;\\()\[\].]{0,12}(?:\\?q?quad|\\text\s?\{\s*(?:and|or)\s*\}|and|or|[\s$,;\\()\[\]]){0,6}(?:[a-z]_?\d?\s?=\s?)?"
)
STATES = re.compile(r"(?:\b(?:is|are|be|equals|get|have|find)|=)(?:\s(?:the|only|exactly|just))?\s*$")
SAID = re.compile(r"[^$\\.]{0,80}?\b(?:is|are|equals)\s(?:exactly\s|only\s)?(-?\d[\d,]*(?:\.\d+)?)(?=[\s.,]|$)")
ALIGNED = re.compile(r"\\end\{(?:align|aligned|gather|eqnarray|split|multline|tabular)\*?\}")
RESULT = re.compile(r"=\s?([^=$\n]{1,30}?)\s?\$")
WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
BETWEEN = re.compile(r"[\s,;:]*(?:and|or|,|&)?\s*")
REASON = re.compile(
    r"\s*[,;(]?\s*\b(?:because|since|where|which|so that|as the|when|for all|with)\b.*$"
    r"|\s\([^()\\]*[a-z]{2}\s[^()]*\)\s*$",
    re.DOTALL,
)


def commit(text: str, _choices: Sequence[str]) -> Found:
    """The formula that the text commits to last; a box outranks words, for words may speak of it afterwards."""
    found = joined(list(commitments(text)), text)
    for commitment in sorted(found, key=lambda c: c.rule != "boxed"):
        answer = _answer(commitment)
        if answer:
            return Found(commitment.rule, answer, True)
    if len(text) <= 200 and _alone(text.strip()):
        return Found("bare", text.strip(), True)
    for line in conclusions(text):
        if answer := _concluded(line, text[-WINDOW:]):
            return Found("conclusion", answer, True)
    return unread(found)


def joined(found: list[Commitment], text: str) -> list[Commitment]:
    """Boxes that stand side by side, `\\boxed{1} and \\boxed{2}`, as one box with a list."""
    boxes = sorted((c for c in found if c.rule == "boxed"), key=lambda c: c.start)
    if len(boxes) < 2:
        return found
    last = boxes.pop()
    contents, start = [last.text], last.start
    while boxes and BESIDE.fullmatch(text, boxes[-1].end, start) and boxes[-1].text != contents[0]:
        box = boxes.pop()
        contents.insert(0, box.text)
        start = box.start
    return [Commitment("boxed", ", ".join(contents), start, last.end), *(c for c in found if c.start < start)]


def _alone(text: str) -> bool:
    """Whether a text is an answer and no sentence: one formula, or a few words."""
    if not text or "\n" in text or re.search(r"\b(?:is|are)\b", text):
        return False
    formulas = _formulas(text)
    if formulas:
        return formulas[0][1:] == (0, len(text)) or len(WORDS.findall(text)) <= 1
    return len(WORDS.findall(text)) <= 3


def _concluded(line: str, text: str) -> str | None:
    """The answer of a last sentence: its last equation or what it says that something is, the formula that the
    working arrived at, its last formula; without formulas its last number."""
    if (end := max((match.end() for match in ALIGNED.finditer(line)), default=0)) and not line[end:].strip(" $].\\"):
        return re.sub(r"\\\\|&|\\end\{.*", "", line.rpartition("=")[2]).strip(" .") or None
    line = line[end:]
    found = [each for each in _formulas(line) if not each[0].endswith("=")]
    if found and (plain_one := SAID.match(line, found[-1][2])):
        return plain_one[1]
    if stated := [f for f, start, _ in found if "=" in f or STATES.search(line[max(0, start - 20) : start])]:
        return stated[-1]
    formulas = [formula for formula, _, _ in found]
    if len(formulas) > 1 and (results := RESULT.findall(text.rpartition(line)[0])):
        return next((f for f in reversed(formulas) if plainly(results[-1], f)), formulas[-1])
    if formulas:
        return formulas[-1]
    numbers = list(readings(line))
    return numbers[-1].text if numbers else None


def last(text: str, _choices: Sequence[str]) -> str | None:
    """The last formula or number."""
    tail = text[-WINDOW:]
    box = next((c.text for c in commitments(tail) if c.rule == "boxed"), None)
    if box is not None:
        return box
    formulas = _formulas(tail)
    numbers = list(readings(tail[-300:]))
    if formulas and (not numbers or formulas[-1][2] >= len(tail) - 300 + numbers[-1].end):
        return formulas[-1][0]
    return numbers[-1].text if numbers else formulas[-1][0] if formulas else None


def _answer(commitment: Commitment) -> str | None:
    """The part of a commitment that is the answer: its formulas, or its words without reasons."""
    piece = commitment.text.strip()
    if commitment.rule == "boxed" or not piece:
        return piece or None
    if "\\boxed" in piece:
        return None  # the box itself is among the commitments
    formulas = _formulas(piece)
    if not formulas or formulas[0][1] > 3:
        piece = predicate(sentence(piece))
        formulas = _formulas(piece)
    if not formulas:
        return _worded(REASON.sub("", piece).strip(" *`").rstrip(".")) or None
    answer, _, end = formulas[0]
    for formula, start, after in formulas[1:]:
        if not BETWEEN.fullmatch(piece, end, start):
            break
        answer, end = f"{answer}, {formula}", after
    return answer


def predicate(said: str) -> str:
    """What a sentence says of its subject: `The volume of $ABC$ is 120` says `120`."""
    said = REASON.sub("", said)
    _, verb, after = max(
        (said.rpartition(f" {verb} ") for verb in ("is", "are", "equals", "be")), key=lambda p: len(p[0])
    )
    return after if verb and re.search(r"[\d$\\]", after) else said


def _worded(said: str) -> str:
    """Words as they are, or the one number of a long sentence."""
    if len(WORDS.findall(said)) < 4:
        return said
    numbers = list(readings(said))
    return numbers[0].text if len(numbers) == 1 else said


def _formulas(piece: str) -> list[tuple[str, int, int]]:
    """The formulas between dollar signs or brackets; a dollar sign without its partner is money."""
    if len(re.findall(r"(?<!\\)\$", piece)) % 2 and "\\(" not in piece:
        return []
    return [
        (next(group for group in match.groups() if group is not None).strip(), match.start(), match.end())
        for match in FORMULA.finditer(piece)
    ]


def same(gold: str, answer: str) -> bool | None:
    """Whether the two are one value; None where the library did not finish in time."""
    if "\\boxed" in gold and not gold.startswith("\\boxed"):
        gold = commit(gold, ()).answer or gold
    decided = plainly(gold, answer)
    if decided is not None:
        return decided
    if max(len(gold), len(answer)) > LONGEST:
        return False
    return workers.verify(canonical(gold), canonical(answer))
