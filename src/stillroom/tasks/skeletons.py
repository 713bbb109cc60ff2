"""Which split a synthetic problem belongs to: decided by its skeleton alone, so that no split can hold another's."""

import hashlib
from collections.abc import Iterator

from stillroom.errors import DataError
from stillroom.records import Problem

PATIENCE = 20_000
"""Draws in a row that bring nothing new, after which there is nothing more to find."""


def home(skeleton: str) -> str:
    """`train` (85 %), `validation` (5 %) or `test` (10 %), by the skeleton's hash."""
    bucket = hashlib.sha256(skeleton.encode()).digest()[0]
    return "test" if bucket < 26 else "validation" if bucket < 39 else "train"


def take(count: int, split: str, where: str, draws: Iterator[Problem]) -> list[Problem]:
    """The first `count` problems of an endless stream that belong to `where`, each skeleton once.

    Ids are made of `split`, the number of steps and a running number. Raises `DataError` when the stream holds too few.
    """
    seen: set[str] = set()
    found: list[Problem] = []
    barren = 0
    while len(found) < count:
        problem = next(draws)
        barren += 1
        if home(problem.skeleton) == where and problem.skeleton not in seen:
            seen.add(problem.skeleton)
            found.append(problem.model_copy(update={"id": f"{split}-{len(problem.steps)}-{len(found) + 1}"}))
            barren = 0
        if barren > PATIENCE:
            raise DataError(
                f"task {problem.task}: {count} problems with {len(problem.steps)} steps are wanted for {split!r}, and "
                f"only {len(found)} different ones were found: ask for fewer, or widen the range they are drawn from"
            )
    return found
