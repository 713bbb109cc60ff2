"""The questions of `stillroom teach`: JSON lines of the user's own or of GSM8K; faults are named by line."""

import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

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
        """Raises `DataError` at a line that is no question, and behind the last line for an id that stands twice: what
        is to be asked is gone through once before anything is sent, and 16 bytes a line are all that is kept."""
        if os.path.exists(self.path) and not (self.path.is_file() or self.path.is_dir()):  # noqa: PTH110 (raises nothing)
            raise DataError(f"{self.path}: is no file; questions are read several times: write them into one")
        lines, ids = array("q"), array("q")
        for number, line in islice(numbered_lines(self.path), self.limit):
            row = read_row(line)
            if row is None or "question" not in row:
                raise DataError(f"{self.path}:{number}: expected a JSON object with `question`; mend this line")
            problem = question(row, self.path, number)
            lines.append(number)
            ids.append(hash((problem.task, problem.id)))
            yield problem
        if len(np.unique(ids)) < len(ids):
            self._refuse_twice(dict(zip(lines, ids, strict=True)))

    def _refuse_twice(self, ids: dict[int, int]) -> None:
        """Name the first id of all lines that an earlier line has too."""
        first: dict[int, int] = {}
        number = next(number for number, each in ids.items() if first.setdefault(each, number) != number)
        row = read_row(next(line for at, line in numbered_lines(self.path) if at == number))
        name = question(row or {}, self.path, number).id
        raise DataError(
            f"{self.path}:{number}: the id {name!r} stands in line {first[ids[number]]} too; give each its own"
        )


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
