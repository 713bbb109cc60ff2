"""A user's own questions: JSON lines `{"question", "answer"?, "kind"?, "choices"?, "id"?, "solution"?}`.

A question without an answer can be asked and never graded: it stands in the split `ungraded`, which no score counts.
"""

import difflib
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from stillroom.config import Config
from stillroom.errors import DataError, unknown
from stillroom.records import Kind, Problem
from stillroom.tasks.benchmarks.notes import Notes, Refused, Splits
from stillroom.tasks.benchmarks.readers import own
from stillroom.tasks.benchmarks.reading import Seen, first_met, hold_out, in_a_line
from stillroom.tasks.benchmarks.rows import Row, rows

UNGRADED = "ungraded"
OPTIONAL = ("answer", "kind", "choices", "solution")
"""Fields whose slip would change what is graded."""


class QuestionsConfig(Config):
    """Your own questions, from `questions.jsonl`. The kind of an answer is inferred where it is not given."""

    name: Literal["questions"] = "questions"
    file: str = "questions.jsonl"
    test: int = Field(0, ge=0)
    """How many of them, from the end, are tested on; 0: all, and none is learned from."""
    validation: int = Field(100, ge=1)
    """How many before those choose layers and positions, where any are learned from."""


def question_files(config: QuestionsConfig) -> tuple[str, ...]:
    return (config.file,)


def read_questions(config: QuestionsConfig, data: Path) -> Splits:
    """`test` (and `train` and `validation` where `test` is given), and `ungraded` where any answer is missing."""
    notes = Notes(taught=True)
    problems = _problems(data / config.file, notes)
    graded = [problem for problem in problems if problem.answer]
    found = Splits({"test": graded} if graded else {}, {config.file: notes})
    if config.test:
        taught = Splits({"train": graded[: -config.test], "test": graded[-config.test :]}, found.notes)
        found = hold_out(taught, config.validation, f"{config.file}, without those to test on,")
    open_ones = [problem for problem in problems if not problem.answer]
    return Splits({**found, **({UNGRADED: open_ones} if open_ones else {})}, found.notes)


def _problems(path: Path, notes: Notes) -> list[Problem]:
    problems, seen = [], Seen()
    for number, row in rows(path, ("question",), "id"):
        notes.line, notes.rows = number, notes.rows + 1
        try:
            problem = own(valid(row), notes).model_copy(
                update={"task": "questions", "id": str(row.get("id", f"question-{number}"))}
            )
            first_met(problem, "the file", seen)
            problems.append(problem)
            if not problem.answer:
                notes.add("kept", "no answer: asked, not scored")
        except Refused as reason:
            notes.add("refused", str(reason))
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{path}:{number}: {in_a_line(error)}; mend or remove this line") from None
    notes.problems = len(problems)
    return problems


def valid(row: Row) -> Row:
    """The row, once its fields are of the right types and none of them looks like a slip."""
    for name in row:
        near = difflib.get_close_matches(name, OPTIONAL, n=1, cutoff=0.8)
        if near and near[0] not in row:
            raise ValueError(f"unknown field {name!r}: did you mean {near[0]!r}?")
    if not isinstance(row["question"], str):
        raise ValueError(f"the question {row['question']!r} is no text")
    if (kind := row.get("kind")) is not None and kind not in get_args(Kind):
        raise ValueError(unknown("kind", str(kind), get_args(Kind)))
    if not isinstance(row.get("answer"), str | int | float | None):
        raise ValueError(f"the answer {row['answer']!r} is neither text nor number, true or false")
    if not isinstance(row.get("choices"), list | None):
        raise ValueError("`choices` is no list")
    return row
