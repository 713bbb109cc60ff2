"""A student that is spoken with: a question in, thoughts and an answer out, as many askers as there are.

A student answers one asker at a time, since the engine replaces its attention while it answers.

Legend: K thoughts, d model width.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stillroom.conversation.turns import Change, Contrast, Shown, Turn, Way
from stillroom.decoding import Completion
from stillroom.errors import UsageError
from stillroom.evaluation import EvaluateConfig, thinking
from stillroom.evaluation.local import completions, fitting
from stillroom.oracle import asking
from stillroom.oracle.asking import Reply
from stillroom.oracle.readers import Reader
from stillroom.students import Student
from stillroom.students.thoughts import (
    Answer,
    Intervention,
    Noise,
    Patch,
    Skip,
    Variant,
    Zero,
    answer_variants,
    statistics,
    think_and_answer,
)

NEW_TOKENS = 96
DIGITS = 5
"""Of a thought's coordinates."""


class Speaker:
    """A plain student with its name, the questions that it may be compared on (`company`), and where its reader is."""

    def __init__(
        self, label: str, student: Student, company: Sequence[str], find_reader: Callable[[], Reader],
        new_tokens: int = NEW_TOKENS,
    ) -> None:  # fmt: skip
        self.label, self.student, self.company, self.new_tokens = label, student, tuple(company), new_tokens
        self._find_reader, self._reader = find_reader, None
        self._lock = threading.Lock()
        self._thought: tuple[tuple[tuple[str, ...], int], Tensor] | None = None

    _reader: Reader | None

    @property
    def thoughts(self) -> int:
        """How many thoughts it was taught to think; 0 for one that reasons in words."""
        told = self.student.manner.thoughts
        return told.count if told else 0

    def check(self, way: Way) -> None:
        """Raise `UsageError` for a way in which it cannot be asked."""
        if not self.thoughts:
            if way.changes or way.thoughts not in ("", "0", thinking.OFF):
                raise UsageError(f"{self.label} reasons in words: it has no thoughts to count or to replace")
            return
        count = 0 if way.thoughts == thinking.OFF else int(way.thoughts or self.thoughts)
        if count >= self.student.context:
            raise UsageError(f"{count} thoughts: {self.label} attends to {self.student.context} positions in all")
        for change in way.changes:
            if not 0 <= change.step < count:
                told = f"they count from 0 to {count - 1}" if count else "it is asked to think none"
                raise UsageError(f"thought {change.step} of {self.label}: {told}")

    def say(self, question: str, way: Way, company: Sequence[str] = ()) -> Turn:
        """Ask it. Raises `UsageError` for a question that is too long or empty, and for a way that it does not have.

        `company` are further questions, the newest last, from which a thought may be taken.
        """
        if not question.strip():
            raise UsageError("the question is empty: write one")
        self.check(way)
        with self._lock:
            began = time.monotonic()
            if not self.thoughts:
                turn = self._in_words(question, way)
            else:
                turn = self._in_vectors(question, way, [q for q in company if q != question])
            return replace(turn, seconds=round(time.monotonic() - began, 4))

    def reader(self) -> Reader:
        """What reads its thoughts, found when it is first needed. Raises `UsageError` where the store has none."""
        if self._reader is None:
            self._reader = self._find_reader()
        return self._reader

    def ask_oracle(self, question: str, query: str) -> Reply:
        """What a reader says about its undisturbed thoughts. Raises `UsageError` as `oracle.asking` does."""
        if not query.strip():
            raise UsageError("the question about the thoughts is empty: write one, such as `Summarize the thinking.`")
        if not self.thoughts:
            raise UsageError(f"{self.label} reasons in words, so it has no thoughts to ask about")
        with self._lock:
            return asking.ask(self.student, self.reader(), question, query)

    def _in_words(self, question: str, way: Way) -> Turn:
        config = EvaluateConfig(new_tokens=self.new_tokens, batch_size=1)
        prompts = self.student.prompts([question])
        if not fitting(self.student, prompts, config):
            raise UsageError(
                f"the question takes {len(prompts[0])} tokens, and beside {self.new_tokens} of an answer the context "
                f"of {self.label} holds {self.student.context}: ask a shorter one"
            )
        ((_, done),) = next(completions(self.student, prompts, config)).items()
        return self._turn(question, way, done)

    def _in_vectors(self, question: str, way: Way, company: list[str]) -> Turn:
        thinker, prompt = self.student.thinker(), self.student.prompt(question)
        plain = thinking.variant(way.thoughts or str(self.thoughts), self.thoughts, ())
        count = plain.thoughts or 0
        means = [self._intervention(change, company, count) for change in way.changes]
        early = [Variant(j, tuple(m for m in means if m.step < j)) for j in range(count + 1)]
        ways = early if plain.thoughts is not None else [plain]
        if means:
            ways = [*ways, plain]
        (answers,) = answer_variants(thinker, [prompt], ways, self.new_tokens, vectors=True)
        main = answers[len(ways) - 1 - bool(means)]
        said = [self._text(answer.completion) for answer in answers]
        return replace(
            self._turn(question, way, main.completion),
            thoughts=tuple(self._shown(main, way, count)),
            early=tuple(said[: len(early)]) if plain.thoughts is not None else (),
            undisturbed=said[-1] if means else None,
        )

    def _intervention(self, change: Change, company: list[str], count: int) -> Intervention:
        step = change.step
        match change.kind:
            case "zero":
                return Zero(step)
            case "noise":
                return Noise(step)
            case "skip":
                return Skip(step)
            case "swap":
                other = change.other or next(iter([*reversed(company), *self.company]), "")
                if not other:
                    raise UsageError("there is no other question to take a thought from: name one, or ask one more")
                return Patch(step, self._thoughts_of((other,), count)[step])
        others = self.company or tuple(company)
        if not others:
            raise UsageError("a mean is taken over other questions, and there are none: ask another one first")
        return Patch(step, self._thoughts_of(others, count)[step])

    def _thoughts_of(self, questions: tuple[str, ...], count: int) -> Tensor:
        """The mean of the undisturbed thoughts about these questions, Kd."""
        if self._thought is None or self._thought[0] != (questions, count):
            made = think_and_answer(self.student.thinker(), self.student.prompts(questions), count, 1)
            self._thought = (questions, count), torch.stack([answer.thoughts_Kd for answer in made]).mean(0)
        return self._thought[1]

    def _shown(self, answer: Answer, way: Way, count: int) -> Iterator[Shown]:
        """Each thought, those that were left out too."""
        replaced = {change.step: change.kind for change in way.changes}
        kept = iter(self._read(answer) if len(answer.thoughts_Kd) else ())
        for step in range(count):
            if replaced.get(step) == "skip":
                yield Shown(step, (), (), 0.0, None, 0.0, 0.0, (), "skip")
            else:
                yield replace(next(kept), step=step, replaced=replaced.get(step, ""))

    def _read(self, answer: Answer) -> Iterator[Shown]:
        consumed_Kd, head = answer.thoughts_Kd, self.student.thinker().head
        made_of = statistics(answer.hiddens_Kd, head)
        words = self.student.tokenizer.batch_decode([[token] for one in made_of for token, _ in one.top])
        before_d: Tensor | None = None
        for step, (own, read) in enumerate(zip(statistics(consumed_Kd, head), made_of, strict=True)):
            width = len(read.top)
            tokens = words[step * width : (step + 1) * width]
            yield Shown(
                step, _plain(consumed_Kd[step]), _plain(consumed_Kd[step] - before_d) if before_d is not None else (),
                own.norm, own.cosine_to_previous, own.sparsity, read.entropy,
                tuple((word, share) for word, (_, share) in zip(tokens, read.top, strict=True)),
            )  # fmt: skip
            before_d = consumed_Kd[step]

    def _turn(self, question: str, way: Way, done: Completion) -> Turn:
        return Turn(self.label, question, way, self._text(done), done.stopped, len(done.ids), 0.0)

    def _text(self, done: Completion) -> str:
        return str(self.student.tokenizer.decode(done.ids, skip_special_tokens=True)).strip()


def _plain(vector_d: Tensor) -> tuple[float, ...]:
    numbers: list[Any] = vector_d.float().tolist()
    return tuple(float(f"{number:.{DIGITS}g}") for number in numbers)


def contrast(one: Turn, other: Turn) -> Contrast:
    """What sets two students' answers to one question apart."""
    pairs = [(a.values, b.values) for a, b in zip(one.thoughts, other.thoughts, strict=False)]
    fitting = [(torch.tensor(a), torch.tensor(b)) for a, b in pairs if a and len(a) == len(b)]
    cosines = [float(torch.nn.functional.cosine_similarity(a, b, dim=0)) for a, b in fitting]
    return Contrast(one.answer == other.answer, tuple(round(cosine, 4) for cosine in cosines))
