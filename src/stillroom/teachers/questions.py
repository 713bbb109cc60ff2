"""The questions of `stillroom teach`: JSON lines of the user's own or of GSM8K; faults are named by line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stillroom.errors import DataError
from stillroom.files import numbered_lines
from stillroom.records import Problem
from stillroom.tasks.benchmarks.notes import Notes, Refused
from stillroom.tasks.benchmarks.questions import valid
from stillroom.tasks.benchmarks.readers import gsm8k, own

GSM8K_MARK = "####"


@dataclass(frozen=True)
class Questions:
    """The first `limit` problems of a JSON-lines file, read anew each time: a large file is never held in memory."""

    path: Path
    limit: int | None = None

    def __iter__(self) -> Iterator[Problem]:
        met: dict[int, int] = {}
        for number, line in islice(numbered_lines(self.path), self.limit):
            row = read_row(line)
            if row is None or "question" not in row:
                raise DataError(f"{self.path}:{number}: expected a JSON object with `question`; mend this line")
            problem = question(row, self.path, number)
            first = met.setdefault(hash((problem.task, problem.id)), number)
            if first != number:
                raise DataError(
                    f"{self.path}:{number}: the id {problem.id!r} stands in line {first} too; give each its own"
                )
            yield problem


def read_row(line: str) -> dict[str, Any] | None:
    """A JSON object that can be written again, or None."""
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # not so for half a character, `"\\ud800"`
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def question(row: dict[str, Any], path: Path, number: int) -> Problem:
    """A problem from a row of the user's own, or of GSM8K, whose `answer` holds the solution too."""
    solved = GSM8K_MARK in str(row.get("answer", ""))
    try:
        problem = gsm8k(row, Notes(taught=False)) if solved else own(valid(row), Notes(taught=False))
    except (Refused, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}:{number}: {error}; mend or remove this line") from None
    if not isinstance(row.get("id"), str | int | float | None):
        raise DataError(f"{path}:{number}: `id` is neither text nor a number; mend or remove this line")
    name = str(row.get("task") or row.get("dataset") or path.stem)
    return problem.model_copy(update={"task": name, "id": str(row.get("id") or f"{path.stem}-{number}")})
