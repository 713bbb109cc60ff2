"""Files become splits: every row through its reader, duplicates out, ids in."""

from collections.abc import Hashable, Mapping
from pathlib import Path

from pydantic import ValidationError

from stillroom.errors import DataError, first_fault
from stillroom.records import Problem
from stillroom.tasks.benchmarks.kinds import LETTERS
from stillroom.tasks.benchmarks.notes import Notes, Refused, Splits
from stillroom.tasks.benchmarks.repair import clean
from stillroom.tasks.benchmarks.rows import Row, rows
from stillroom.tasks.benchmarks.table import BENCHMARKS
from stillroom.tasks.contamination import normalised

ORDER = ("test", "validation", "train")
"""What is tested is read first, so that a training row that is also tested is the one to go."""

Seen = dict[Hashable, tuple[str, str]]
"""From a problem as the contamination gate sees it to the split that it stands in and its answer."""


def read_splits(name: str, paths: Mapping[str, Path]) -> Splits:
    """The splits of a benchmark, with notes on each file. A question that stands twice is kept once."""
    seen: Seen = {}
    notes = {split: Notes(taught=split == "train") for split in paths}
    found = {split: read_file(name, split, paths[split], notes[split], seen) for split in ORDER if split in paths}
    return Splits(found, {paths[split].name: notes[split] for split in paths})


def read_file(name: str, split: str, path: Path, notes: Notes, seen: Seen) -> list[Problem]:
    """The problems of one file. Raises `DataError`, which names the line, for a row that no known defect explains."""
    benchmark = BENCHMARKS[name]
    problems = []
    for number, row in rows(path, benchmark.fields, benchmark.identity or None):
        notes.line, notes.rows = number, notes.rows + 1
        try:
            problem = mended(benchmark.read(row, notes), notes)
            identity = _identity(row, benchmark.identity, f"{name}-{split}-{number - 1}")
            first_met(problem, split, seen)
            problems.append(problem.model_copy(update={"task": name, "id": identity}))
        except Refused as reason:
            notes.add("refused", str(reason))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}:{number}: {in_a_line(error)}; mend or remove this line") from None
    notes.problems = len(problems)
    if not problems:
        raise DataError(f"{path}: none of its {notes.rows} rows can be used: {notes.sentence()}")
    return problems


def mended(problem: Problem, notes: Notes) -> Problem:
    """The problem with the mojibake of its texts turned back."""
    texts = {name: clean(getattr(problem, name), notes) for name in ("question", "solution", "story")}
    return problem.model_copy(update=texts)


def first_met(problem: Problem, split: str, seen: Seen) -> None:
    """Raise `Refused` for a question that was met before."""
    same, answer = normalised(problem), _answer(problem)
    if same not in seen:
        seen[same] = (split, answer)
        return
    where, first = seen[same]
    place = "it stands above" if where == split else f"it stands in {where}"
    raise Refused(f"{place}{'' if answer == first else ' with another answer'}")


def _answer(problem: Problem) -> str:
    """The answer; of a letter what it stands for, for options change places."""
    letters = dict(zip(LETTERS, problem.choices, strict=False))
    return letters.get(problem.answer, problem.answer)


def hold_out(found: Splits, count: int, where: str) -> Splits:
    """`validation` is the last `count` training problems, where there is no file of them."""
    train = found["train"]
    if count >= len(train):
        raise DataError(f"task.validation is {count}, but {where} holds {len(train)} problems")
    held = {"train": train[:-count], "validation": train[-count:], "test": found["test"]}
    return Splits(held, found.notes)


def _identity(row: Row, field: str, otherwise: str) -> str:
    identity = row.get(field, otherwise) if field else otherwise
    if not isinstance(identity, str):
        raise ValueError(f"{field} {identity!r} is no text")
    return identity


def in_a_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_fault(error)
    return f"the field {error} is missing" if isinstance(error, KeyError) else str(error)[:300]
