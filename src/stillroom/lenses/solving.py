"""How many problems a student still solves when its network is disturbed, by number of steps.

What is counted is exact and costs one pass a problem: a problem counts as solved when greedy decoding gives the text
that the undisturbed student wrote, and that text is right. For a student that answers without reasoning this is its
accuracy; for one that reasons in words it is a lower bound, since other words may be right too.

Legend: B rows, A tokens of an answer, V vocabulary, N problems.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from stillroom.errors import DataError
from stillroom.evaluation import EvaluateConfig, judge
from stillroom.evaluation.local import completions
from stillroom.lenses.texts import Text, batch, texts
from stillroom.records import Prediction, Problem
from stillroom.students import Student


class Exam(NamedTuple):
    """Problems and what the undisturbed student answers to them."""

    problems: Sequence[Problem]
    questions: Sequence[Text]
    """Up to where the answer begins."""
    answers: Sequence[list[int]]
    """With the token that stops, where the student stopped."""
    right: Sequence[bool]

    @property
    def groups(self) -> dict[str, list[int]]:
        """Rows of all problems, then by number of steps."""
        found: dict[str, list[int]] = {"all": list(range(len(self.problems)))}
        for row, problem in enumerate(self.problems):
            if problem.steps:
                found.setdefault(f"{len(problem.steps)} steps", []).append(row)
        return found

    def whole(self, row: int) -> Text:
        """Question and answer of one problem."""
        return replace(self.questions[row], ids=[*self.questions[row].ids, *self.answers[row]])


def sample(problems: Sequence[Problem], count: int) -> list[Problem]:
    """At most `count` problems of each number of steps, the first of each."""
    taken: dict[int, list[Problem]] = {}
    for problem in problems:
        taken.setdefault(len(problem.steps), []).append(problem)
    return [problem for steps in sorted(taken) for problem in taken[steps][:count]]


def examine(student: Student, problems: Sequence[Problem], new_tokens: int, batch_size: int) -> Exam:
    """Ask the undisturbed student, for what room its context leaves. Raises `DataError` where it leaves none."""
    prompts = student.prompts([problem.question for problem in problems])
    thoughts = student.manner.thoughts.count + 2 if student.manner.thoughts else 0
    room = student.context - max(map(len, prompts)) - thoughts
    if room < 1:
        raise DataError(f"a context of {student.context} tokens leaves no room behind the longest question")
    config = EvaluateConfig(new_tokens=min(new_tokens, room), batch_size=batch_size)
    found = {row: done for part in completions(student, prompts, config) for row, done in part.items()}
    done = [found[row] for row in range(len(problems))]
    answers = [
        Prediction(
            problem=problem.id,
            text=str(student.tokenizer.decode(answer.ids, skip_special_tokens=True)),
            tokens=len(answer.ids),
            stopped=answer.stopped,
        )
        for problem, answer in zip(problems, done, strict=True)
    ]
    right = [verdict.correct for verdict in judge(problems, answers)]
    ids = [[*answer.ids, *student.stops[:1][: int(answer.stopped)]] for answer in done]
    return Exam(problems, [asked(text) for text in texts(student, problems)], ids, right)


def asked(text: Text) -> Text:
    """The text as far as the student is asked, without words of an answer."""
    return replace(text, ids=text.ids[: text.words])


@torch.inference_mode()
def solved(student: Student, exam: Exam, batch_size: int) -> list[bool]:
    """Whether greedy decoding, as the network is at present, still gives the undisturbed student's right answer.

    Raises `DataError` where the outputs are no finite numbers.
    """
    found = [False] * len(exam.problems)
    rows = [row for row, right in enumerate(exam.right) if right]  # no other can be solved in the same words
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        whole = [exam.whole(row) for row in part]
        out: Any = student.model(**batch(student, whole), use_cache=False)
        if not torch.stack([out.logits[i, : len(text.ids)].isfinite().all() for i, text in enumerate(whole)]).all():
            raise DataError(
                "a student's outputs are no finite numbers: its weights or activations hold NaN or infinity"
            )
        likeliest_BT = out.logits.argmax(-1)
        for i, row in enumerate(part):
            begin = len(exam.questions[row].ids) - 1
            said = likeliest_BT[i, begin : begin + len(exam.answers[row])].tolist()
            found[row] = said == exam.answers[row]
    return found
