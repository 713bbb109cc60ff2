"""What probes are asked for: the value and the operation of every step, how many steps there are, whether one is last.

Beside every target stands its *control task* (Hewitt & Liang 2019, arXiv 1909.03368): every type (an operand of the
step; the first number, where the whole problem is asked about) has a label of its own, drawn once from the target's.

Legend: B problems, D width of one-hot rows, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stillroom.lenses.ledger import Candidates
from stillroom.lenses.probing import Floats, Labels, one_hot
from stillroom.lenses.reading import NUMBER
from stillroom.records import Problem
from stillroom.students import Student

SIGNS = "+-*/"
Splits = Mapping[str, Sequence[Problem]]


class Target(NamedTuple):
    """One thing that is asked for, with the labels of every problem of every split and its control's; −1 is none."""

    name: str
    classes: int
    labels: Mapping[str, Labels]
    controls: Mapping[str, Labels]
    step: int | None = None
    """The step whose value it is."""
    is_answer: bool = False


def values(student: Student, splits: Splits, among: Candidates, seed: int) -> list[Target]:
    """Every step's value, of problems of one number of steps."""
    places = {v: among.place(v, student) for v in {s.value for rows in splits.values() for p in rows for s in p.steps}}

    def label(problem: Problem, step: int) -> int:
        place = places[problem.steps[step].value]
        return -1 if place is None else place

    steps = range(len(splits["test"][0].steps))
    draw = np.random.default_rng(seed)
    return [
        _target(f"value {s + 1}", splits, len(among.values), lambda p, s=s: label(p, s), _operand(s), draw)._replace(  # type: ignore[misc]
            step=s, is_answer=s == steps[-1]
        )
        for s in steps
    ]


def operations(splits: Splits, seed: int) -> list[Target]:
    """Every step's operation, where its expression is written with one."""
    draw = np.random.default_rng(seed + 1)
    return [
        _target(f"operation {s + 1}", splits, len(SIGNS), lambda p, s=s: _sign(p, s), _operand(s), draw)  # type: ignore[misc]
        for s in range(len(splits["test"][0].steps))
    ]


def lengths(splits: Splits, seed: int) -> list[Target]:
    """How many steps there are, and whether the first that can be the last is: of problems of many numbers of steps."""
    counts = sorted({len(p.steps) for rows in splits.values() for p in rows})
    draw = np.random.default_rng(seed + 2)

    def first(problem: Problem) -> str:
        return next(iter(NUMBER.findall(problem.question)), "")

    return [
        _target("number of steps", splits, len(counts), lambda p: counts.index(len(p.steps)), first, draw),
        _target(f"step {counts[0]} is final", splits, 2, lambda p: int(len(p.steps) == counts[0]), first, draw),
    ]


def _target(
    name: str,
    splits: Splits,
    classes: int,
    label: Callable[[Problem], int],
    kind: Callable[[Problem], str],
    draw: np.random.Generator,
) -> Target:
    labels = {split: np.array([label(problem) for problem in rows]) for split, rows in splits.items()}
    kinds = sorted({kind(problem) for rows in splits.values() for problem in rows})
    drawn = dict(zip(kinds, draw.choice(labels["train"], len(kinds)).tolist(), strict=True))
    controls = {split: np.array([drawn[kind(problem)] for problem in rows]) for split, rows in splits.items()}
    return Target(name, classes, labels, controls)


def _operand(step: int) -> Callable[[Problem], str]:
    return lambda problem: operand(problem, step)


def operand(problem: Problem, step: int) -> str:
    """The type of a control task: the last number of the step's expression, which a place may know by itself."""
    return next(reversed(NUMBER.findall(problem.steps[step].expression)), "")


def _sign(problem: Problem, step: int) -> int:
    return next((i for i, sign in enumerate(SIGNS) if f" {sign} " in problem.steps[step].expression), -1)


def inputs(problems: Sequence[Problem], known: Sequence[Problem]) -> Floats:
    """(B, D) one-hot rows of what the question says: its numbers by their place, and the steps' operators."""

    def words(problem: Problem) -> list[str]:
        numbers = [f"{i} {number}" for i, number in enumerate(NUMBER.findall(problem.question))]
        return numbers + [f"{i} {SIGNS[k]}" for i in range(len(problem.steps)) if (k := _sign(problem, i)) >= 0]

    places = {word: i for i, word in enumerate(sorted({word for problem in known for word in words(problem)}))}
    rows = np.zeros((len(problems), len(places)))
    for row, problem in enumerate(problems):
        rows[row, [places[word] for word in words(problem) if word in places]] = 1
    return rows


def answers(problems: Sequence[Problem], known: Sequence[Problem]) -> Floats:
    """(B, D) one-hot rows of the answer."""
    places = {answer: i for i, answer in enumerate(sorted({p.answer for p in known}))}
    return one_hot(np.array([places.get(p.answer, -1) for p in problems]), len(places))
