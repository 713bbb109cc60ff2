"""The one grader: finds the answer that a text commits to, says by which rule, and compares it with the gold one.

Rules, the last commitment of a text first: `asked` (`The answer is X`, `Final Answer: X`), `boxed`, `####`; then
`opening` (a text that begins with yes or no), `conclusion` (its last sentences), `prose` (what they affirm or deny),
`last` (its last letter or word of the kind); `bare` where the text is the gold answer and nothing else, `none` where
nothing was found, and `timeout` where the library for mathematics did not finish: such a verdict is not parsed.

A new kind is a module with `commit`, `last` and `same`, and a line in `KINDS`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from stillroom.errors import UsageError, unknown
from stillroom.records import Kind, Verdict
from stillroom.tasks import boolean, choice, mathematics, numeric, texts, workers
from stillroom.tasks.commitments import WINDOW, own_words
from stillroom.tasks.found import Found

AHEAD = 256
"""Questions that may be under way at once in `grade_all`."""


class Grader(NamedTuple):
    commit: Callable[[str, Sequence[str]], Found]
    last: Callable[[str, Sequence[str]], str | None]
    same: Callable[[str, str, Sequence[str]], bool | None]


KINDS: dict[str, Grader] = {
    "numeric": Grader(numeric.commit, numeric.last, lambda gold, answer, _: numeric.same(gold, answer)),
    "math": Grader(mathematics.commit, mathematics.last, lambda gold, answer, _: mathematics.same(gold, answer)),
    "choice": Grader(choice.commit, choice.last, choice.same),
    "boolean": Grader(boolean.commit, boolean.last, lambda gold, answer, _: boolean.same(gold, answer)),
    "text": Grader(texts.commit, texts.last, lambda gold, answer, _: texts.same(gold, answer)),
}


class Question(NamedTuple):
    kind: Kind
    gold: str
    text: str
    choices: tuple[str, ...] = ()


def grade(kind: Kind, gold: str, text: str, choices: Sequence[str] = ()) -> Verdict:
    """A verdict on `text`: correct when the answer that it commits to last has the value of `gold`.

    Raises `UsageError` for an unknown kind, and never for any text.
    """
    if kind not in KINDS:
        raise UsageError(unknown("kind", kind, KINDS))
    grader = KINDS[kind]
    words = own_words(text)
    if exact := _exact(gold, words):
        return exact
    rule, answer, parsed = grader.commit(words, choices)
    same = grader.same(gold, answer, choices) if answer is not None else False
    if same is None:
        return Verdict(correct=False, extracted=answer, rule="timeout", parsed=False)
    candidate = grader.last(words, choices)
    flexible = same if candidate == answer else candidate is not None and bool(grader.same(gold, candidate, choices))
    strict = rule == "asked" and answer == gold.strip()
    return Verdict(
        correct=same, extracted=answer, rule=rule, parsed=parsed, strict=strict, flexible=flexible, equivalent=same
    )


def grade_all(questions: Iterable[Question]) -> Iterator[Verdict]:
    """Verdicts in the order of the questions; mathematics is verified in several processes at once."""
    waiting: deque[Verdict | Future[Verdict]] = deque()
    with ThreadPoolExecutor(workers.WORKERS) as threads:
        for question in questions:
            waiting.append(threads.submit(grade, *question) if question.kind == "math" else grade(*question))
            while waiting and (len(waiting) > AHEAD or isinstance(waiting[0], Verdict)):
                yield _settled(waiting.popleft())
        while waiting:
            yield _settled(waiting.popleft())


def _settled(verdict: Verdict | Future[Verdict]) -> Verdict:
    return verdict if isinstance(verdict, Verdict) else verdict.result()


def _exact(gold: str, text: str) -> Verdict | None:
    """The verdict on a text that ends in the gold answer letter by letter, alone or in the asked-for form."""
    wanted, said = gold.strip(), text[-2 * WINDOW :].strip()
    if not wanted or not said.endswith((wanted, wanted + ".")):
        return None
    whole = said == wanted and text.strip() == wanted
    before = said.removesuffix(".") if not said.endswith(wanted) else said
    at = before[: -len(wanted)].rstrip(" *$").lower()
    asked = not whole and at.endswith(("the answer is", "the answer is:", "final answer:", "final answer is"))
    if not (whole or asked):
        return None
    rule = "bare" if whole else "asked"
    return Verdict(correct=True, extracted=wanted, rule=rule, parsed=True, strict=asked, flexible=True, equivalent=True)
