"""How many thoughts an answer needs: the same student asked after several numbers of them, and with another's.

Swapping is the causal line: whatever a thought carries of its own question is gone when another question's stands in
its place, while the number of positions and their statistics stay.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from stillroom import stats
from stillroom.errors import UsageError
from stillroom.evaluation import EvaluateConfig, judge, paired
from stillroom.progress import meter
from stillroom.records import Prediction, Problem
from stillroom.students import Student
from stillroom.students.thoughts import Answer, Swap, Variant, answer_variants

OFF, SWAPPED = "off", "swapped"
MOST_DIGITS = 9


def counts(text: str) -> bool:
    """Whether this is a number that can count thoughts; one of thousands of digits is none that Python would read."""
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS


def variant(name: str, count: int, partners: Sequence[int]) -> Variant:
    """`6`: after so many thoughts; `off`: none, nor the tokens around them; `swapped`: another question's, all of them.

    Raises `UsageError` for any other name.
    """
    if name == OFF:
        return Variant(None)
    if name == SWAPPED:
        return Variant(count, tuple(Swap(step, tuple(partners)) for step in range(count)))
    if not counts(name):
        raise UsageError(
            f"thoughts {name[:40]!r}: expected numbers, {OFF} or {SWAPPED}, as in --thoughts 6,0,{SWAPPED}"
        )
    return Variant(int(name))


def strangers(problems: Sequence[Problem]) -> list[int]:
    """For each problem another with as many steps and another answer (the next such, in a ring); itself if there is
    none."""
    partners = []
    for row, problem in enumerate(problems):
        ring = [(row + i) % len(problems) for i in range(1, len(problems))]
        fitting = (
            other
            for other in ring
            if problems[other].answer != problem.answer and len(problems[other].steps) == len(problem.steps)
        )
        partners.append(next(fitting, row))
    return partners


def ask(
    student: Student, problems: Sequence[Problem], names: Sequence[str], config: EvaluateConfig, label: str
) -> dict[str, tuple[list[Prediction], float]]:
    """Predictions in every way that is named, and the seconds that each way took."""
    told = student.manner.thoughts
    if told is None:
        raise UsageError(
            f"{label}: this student reasons in words, so it has no thoughts to count: leave --thoughts out"
        )
    prompts, thinker = student.prompts([problem.question for problem in problems]), student.thinker()
    partners = strangers(problems)
    alone = [problem.id for row, problem in enumerate(problems) if partners[row] == row]
    if alone and SWAPPED in names:
        raise UsageError(
            f"{label}: {len(alone)} of {len(problems)} problems have none beside them with as many steps and another "
            f"answer ({', '.join(alone[:5])}), so no thoughts to swap: ask more problems, or leave {SWAPPED} out"
        )
    variants = {name: variant(name, told.count, partners) for name in names}
    found = {}
    with meter(label, len(variants), "ways") as bar:
        for name, way in variants.items():
            began = time.monotonic()
            answers = [answer for (answer,) in answer_variants(thinker, prompts, [way], config.new_tokens)]
            predictions = [_prediction(student, p, a) for p, a in zip(problems, answers, strict=True)]
            found[name] = (predictions, time.monotonic() - began)
            bar.advance()
    return found


def _prediction(student: Student, problem: Problem, answer: Answer) -> Prediction:
    done = answer.completion
    text = str(student.tokenizer.decode(done.ids, skip_special_tokens=True))
    return Prediction(problem=problem.id, text=text, tokens=len(done.ids), stopped=done.stopped)


def compared(problems: Sequence[Problem], asked: dict[str, tuple[list[Prediction], float]]) -> dict[str, Any]:
    """Accuracy with its interval and questions a second in every way; how each way but the first compares to it."""
    right = {name: [v.correct for v in judge(problems, predictions)] for name, (predictions, _) in asked.items()}
    ways = {
        name: {
            "n": len(problems),
            **dict(zip(("accuracy", "low", "high"), stats.wilson(sum(correct), len(correct)), strict=True)),
            "questions_per_second": len(problems) / asked[name][1],
        }
        for name, correct in right.items()
    }
    first, *others = right
    pairs = [_pair(first, other, right) for other in others]
    return {"thoughts": ways, "comparisons": pairs}


def _pair(a: str, b: str, right: dict[str, list[bool]]) -> dict[str, Any]:
    one = paired(a, b, 0, "test", "all", np.array(right[a]), np.array(right[b]))
    return {
        "a": a, "b": b, "helped": one.only_a, "hurt": one.only_b, "difference": one.difference,
        "low": one.low, "high": one.high, "p": one.p,
    }  # fmt: skip
