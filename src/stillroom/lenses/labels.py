"""What probes are asked for: the value and the operation of every step, how many steps there are, whether one is last.

Beside every target stands its *control task* (Hewitt & Liang 2019, arXiv 1909.03368): every type of problem has a label
of its own, drawn once from the target's, so that a probe can only learn it by heart. What it learns of that tells how
much the probe does by itself, not what a network holds: it is subtracted from accuracy (selectivity), and is no null of
it. A type is made of numbers that lead to what is asked for, the step's own operand first, as many as make at least as
many types as the target has classes. An operand alone stands readable in many places and has so few types that its task
is easier than the value. The first value's types are then the very numbers that it is made of: another function of the
same, without arithmetic in it.

Legend: B problems, D width of one-hot rows, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillroom.lenses.ledger import Candidates
from stillroom.lenses.probing import Floats, Labels, one_hot
from stillroom.lenses.reading import NUMBER
from stillroom.records import Problem
from stillroom.students import Student

SIGNS = "+-*/"
Splits = Mapping[str, Sequence[Problem]]
Numbers = tuple[str, ...]
Flags = NDArray[np.bool_]


class Target(NamedTuple):
    """One thing that is asked for, with the labels of every problem of every split and its control's; −1 is none."""

    name: str
    classes: int
    labels: Mapping[str, Labels]
    controls: Mapping[str, Labels]
    step: int | None = None
    """The step whose value it is."""
    is_answer: bool = False

    def one_class(self) -> bool:
        return len({*self.labels["train"].tolist()}) < 2

    def control(self) -> "Target":
        """The control task, asked for in the target's place."""
        return self._replace(labels=self.controls)

    def shuffled(self, seed: int) -> "Target":
        """The same with the training problems' labels in another order."""
        mixed = np.random.default_rng(seed).permutation(self.labels["train"])
        return self._replace(labels={**self.labels, "train": mixed})

    def commonest(self) -> Flags:
        """(B,): which test problems have the label that training problems have most often."""
        learned = self.labels["train"]
        return np.asarray(self.labels["test"] == np.bincount(learned[learned >= 0], minlength=1).argmax())


def values(student: Student, splits: Splits, among: Candidates, seed: int) -> list[Target]:
    """Every step's value, of problems of one number of steps."""
    places = {v: among.place(v, student) for v in {s.value for rows in splits.values() for p in rows for s in p.steps}}

    def label(problem: Problem, step: int) -> int:
        place = places[problem.steps[step].value]
        return -1 if place is None else place

    steps = range(len(splits["test"][0].steps))
    draw = np.random.default_rng(seed)
    return [
        _target(f"value {s + 1}", splits, len(among.values), lambda p, s=s: label(p, s), _numbers(s), draw)._replace(  # type: ignore[misc]
            step=s, is_answer=s == steps[-1]
        )
        for s in steps
    ]


def operations(splits: Splits, seed: int) -> list[Target]:
    """Every step's operation, where its expression is written with one."""
    draw = np.random.default_rng(seed + 1)
    return [
        _target(f"operation {s + 1}", splits, len(SIGNS), lambda p, s=s: _sign(p, s), _numbers(s), draw)  # type: ignore[misc]
        for s in range(len(splits["test"][0].steps))
    ]


def lengths(splits: Splits, seed: int) -> list[Target]:
    """How many steps there are, and whether the first that can be the last is: of problems of many numbers of steps."""
    counts = sorted({len(p.steps) for rows in splits.values() for p in rows})
    draw = np.random.default_rng(seed + 2)

    def numbers(problem: Problem) -> Numbers:
        return tuple(NUMBER.findall(problem.question))

    return [
        _target("number of steps", splits, len(counts), lambda p: counts.index(len(p.steps)), numbers, draw),
        _target(f"step {counts[0]} is final", splits, 2, lambda p: int(len(p.steps) == counts[0]), numbers, draw),
    ]


def _target(
    name: str,
    splits: Splits,
    classes: int,
    label: Callable[[Problem], int],
    numbers: Callable[[Problem], Numbers],
    draw: np.random.Generator,
) -> Target:
    labels = {split: np.array([label(problem) for problem in rows]) for split, rows in splits.items()}
    types = _types(splits, numbers, len({*labels["train"].tolist()}))
    known = sorted({kind for kinds in types.values() for kind in kinds})
    drawn = dict(zip(known, draw.choice(labels["train"], len(known)).tolist(), strict=True))
    controls = {split: np.array([drawn[kind] for kind in kinds]) for split, kinds in types.items()}
    return Target(name, classes, labels, controls)


def _types(splits: Splits, numbers: Callable[[Problem], Numbers], classes: int) -> dict[str, list[Numbers]]:
    """Each problem's type: the first of its numbers, as many as make `classes` types, or all where none do."""
    told = {split: [numbers(problem) for problem in rows] for split, rows in splits.items()}
    most = max(len(found) for rows in told.values() for found in rows)
    sizes = (size for size in range(1, most) if len({f[:size] for rows in told.values() for f in rows}) >= classes)
    size = next(sizes, most)
    return {split: [found[:size] for found in rows] for split, rows in told.items()}


def _numbers(step: int) -> Callable[[Problem], Numbers]:
    """What a step's value is made of, from its own operand back to the number with which the first step begins."""

    def back(problem: Problem) -> Numbers:
        start = NUMBER.findall(problem.steps[0].expression)[:1]
        return (*(operand(problem, i) for i in range(step, -1, -1)), *start)

    return back


def operand(problem: Problem, step: int) -> str:
    """The last number of the step's expression."""
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
