"""Tasks: where problems come from. A task is a config and a function from it to named splits of problems.

To add one, write a module with both and add a line to `TASKS` (see docs/extending.md).

`train` and `validation` are required; `narrated`, where a task has it, holds stories that state every total but the
last, from which the base learns single steps. Every other split is for testing.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.files import write_lines
from stillroom.records import Problem
from stillroom.store import Workplace
from stillroom.tasks import abacus, benchmarks
from stillroom.tasks.answers import grade

VERSION = 1
TRAIN, VALIDATION, NARRATED = "train", "validation", "narrated"


class Task(NamedTuple):
    config: type[Config]
    splits: Callable[[Any, Path], Mapping[str, list[Problem]]]
    """From a config and the data folder to `train`, `validation` and any number of test splits, by name."""
    files: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """The files of the data folder that it reads: their checksums become part of the run's key."""


TASKS: dict[str, Task] = {
    "abacus": Task(abacus.AbacusConfig, abacus.splits),
    "svamp": Task(benchmarks.SvampConfig, benchmarks.svamp, benchmarks.svamp_files),
}


def make_problems(task: Task, config: Config, data: Path, at: Workplace) -> None:
    """Stage `problems`: a JSON-lines file a split, once every law that a task must keep has been checked."""
    splits = task.splits(config, data)
    check(splits)
    for name, problems in splits.items():
        write_lines(at.out / f"{name}.jsonl", problems)


def check(splits: Mapping[str, list[Problem]]) -> None:
    """Raise `DataError` for a duplicate id, a gold that grades wrong against itself, or a problem in two splits."""
    for name in (TRAIN, VALIDATION):
        if not splits.get(name):
            raise DataError(f"the task gave no problem for the split {name!r}: every task needs train and validation")
    ids = Counter(problem.id for problems in splits.values() for problem in problems)
    if twice := [name for name, count in ids.items() if count > 1]:
        raise DataError(f"problem id {twice[0]!r} stands {ids[twice[0]]} times: ids must be unique over all splits")
    for problem in (problem for problems in splits.values() for problem in problems):
        if not grade(problem.kind, problem.answer, f"The answer is {problem.answer}.", problem.choices).correct:
            raise DataError(f"problem {problem.id!r}: its answer {problem.answer!r} grades as wrong against itself")
    taught = [*splits[TRAIN], *splits.get(NARRATED, ())]
    trained = {mark for problem in taught for mark in _marks(problem)}
    for name, problems in splits.items():
        shared = [p.id for p in problems if name not in (TRAIN, NARRATED) and trained.intersection(_marks(p))]
        if shared:
            raise DataError(f"{len(shared)} problems of {name!r} are also taught, the first is {shared[0]!r}")


def _marks(problem: Problem) -> set[str]:
    """What makes two problems the same: the question without case and blanks, and the skeleton where there is one."""
    question = re.sub(r"\W+", " ", problem.question.lower()).strip()
    return {f"question {question}", *([f"skeleton {problem.skeleton}"] if problem.skeleton else [])}
