"""Problems that differ in their numbers alone, for interventions whose outcome arithmetic foretells.

Of a problem whose steps are one chain (each step changes the last one's value by the question's next number) two
others are told in the same words. The *source* starts from another number, so every value is another. The *placebo*
starts from another number and changes its first operand as well, so that the first value, and with it every later one,
is the same: whatever is copied from it should leave the answer alone, if it is a value that is copied.
"""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from stillroom.lenses.reading import NUMBER
from stillroom.records import Problem, Step

STEP = re.compile(r"(\d+) ([-+*]) (\d+)")
APPLY = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


class Chain(NamedTuple):
    """A start and the operations on it, in their order."""

    start: int
    changes: tuple[tuple[str, int], ...]

    def values(self) -> list[int]:
        """The value after each operation."""
        values, value = [], self.start
        for sign, operand in self.changes:
            value = APPLY[sign](value, operand)
            values.append(value)
        return values


class Triple(NamedTuple):
    clean: Problem
    source: Problem
    placebo: Problem


def chain(problem: Problem) -> Chain | None:
    """The chain that a problem computes, or None where it is none, or where its question has other numbers."""
    steps = [STEP.fullmatch(step.expression) for step in problem.steps]
    if not steps or not all(steps):
        return None
    parts = [(int(m[1]), m[2], int(m[3])) for m in steps if m]
    found = Chain(parts[0][0], tuple((sign, operand) for _, sign, operand in parts))
    before = [found.start, *found.values()]
    told = [str(found.start), *(str(operand) for _, operand in found.changes)]
    links = [str(v) for v in before[1:]] == [step.value for step in problem.steps]
    fits = links and [left for left, _, _ in parts] == before[:-1] and NUMBER.findall(problem.question) == told
    return found if fits else None


def retold(problem: Problem, numbers: Chain) -> Problem:
    """The same words with other numbers, and what they then come to."""
    told = iter([numbers.start, *(operand for _, operand in numbers.changes)])
    values = numbers.values()
    before = [numbers.start, *values]
    steps = tuple(
        Step(expression=f"{left} {sign} {operand}", value=str(value))
        for left, (sign, operand), value in zip(before, numbers.changes, values, strict=False)
    )
    question = NUMBER.sub(lambda _: str(next(told)), problem.question)
    kept = {"question": question, "answer": str(values[-1]), "steps": steps, "skeleton": ""}
    return problem.model_copy(update={**kept, "solution": "", "story": ""})


def triples(problems: Sequence[Problem], seed: int = 0) -> list[Triple]:
    """The problems that have both counterfactuals, with them. No number is larger than the problems' own largest, and
    operands are such as their operation has in some problem, where there is a choice: what is foreign to a student
    tells nothing of how it computes."""
    known = [(problem, found) for problem in problems if (found := chain(problem)) is not None]
    top = max((max(found.start, *found.values()) for _, found in known), default=0)
    usual = {change for _, found in known for change in found.changes}
    made = []
    for problem, found in known:
        rng = random.Random(f"{seed} {problem.id}")
        sources, placebos = _sources(found, top), _placebos(found, top, usual)
        if sources and placebos:
            pair = rng.choice(sources), rng.choice(placebos)
            made.append(Triple(problem, *(retold(problem, numbers) for numbers in pair)))
    return made


def _sources(found: Chain, top: int) -> list[Chain]:
    """Other starts, from which every value is another and none is out of range."""
    others = (found._replace(start=start) for start in range(top + 1))
    own = found.values()
    return [
        other
        for other in others
        if all(0 <= value <= top and value != mine for value, mine in zip(other.values(), own, strict=True))
    ]


def _placebos(found: Chain, top: int, usual: set[tuple[str, int]]) -> list[Chain]:
    """Other starts and first operands that come to the same first value, by a usual change if any does."""
    (sign, operand), *rest = found.changes
    first, apply = found.values()[0], APPLY[sign]
    others = [
        Chain(start, ((sign, other), *rest))
        for start in range(top + 1)
        for other in range(1, top + 1)
        if apply(start, other) == first and start != found.start and other != operand
    ]
    return [other for other in others if other.changes[0] in usual] or others
