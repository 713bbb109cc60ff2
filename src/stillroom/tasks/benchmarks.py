"""Published benchmarks, read from local files of the data folder (fields in each loader's docstring)."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.files import numbered_lines
from stillroom.records import Problem, Step

HINT = (
    "set STILLROOM_DATA or the recipe's `data` to the folder that holds it; "
    "it is a JSON-lines file made from the benchmark's public repository, fields as in docs/recipes.md"
)


def rows(path: Path, fields: tuple[str, ...], identity: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON-lines file with their line numbers.

    Raises `DataError` for a missing file, a line that is not an object with all `fields`, or an `identity` (a
    field) met before.
    """
    seen: dict[Any, int] = {}
    for number, line in numbered_lines(path, HINT):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: not JSON ({error.msg}); the file may be cut short: fetch it again"
            ) from None
        missing = [field for field in fields if not isinstance(row, dict) or field not in row]
        if missing:
            raise DataError(f"{path}:{number}: the field {missing[0]!r} is missing; expected {', '.join(fields)}")
        first = seen.setdefault(json.dumps(row[identity]) if identity else number, number)
        if first != number:
            raise DataError(f"{path}:{number}: {identity} {row[identity]!r} already stands in line {first}; remove one")
        yield number, row
    if not seen:
        raise DataError(f"{path}: the file is empty; {HINT}")


class SvampConfig(Config):
    """SVAMP (Patel et al. 2021): `svamp_train.jsonl` and `svamp_test.jsonl`. The test split shares story bodies with
    the training split, numbers changed: it is not a clean test of generalisation."""

    name: Literal["svamp"] = "svamp"
    validation: int = Field(100, ge=1)
    """Problems taken from the end of the training file for choosing layers and positions."""


def svamp_files(_: SvampConfig) -> tuple[str, ...]:
    return ("svamp_train.jsonl", "svamp_test.jsonl")


def svamp(config: SvampConfig, data: Path) -> dict[str, list[Problem]]:
    """Fields `ID, Body, Question, Equation, Answer`; the steps are read from the equation, innermost first."""
    train, test = (_svamp_file(data / name) for name in svamp_files(config))
    if config.validation >= len(train):
        raise DataError(f"task.validation is {config.validation}, but svamp_train.jsonl holds {len(train)} problems")
    return {"train": train[: -config.validation], "validation": train[-config.validation :], "test": test}


def _svamp_file(path: Path) -> list[Problem]:
    problems = []
    for number, row in rows(path, ("ID", "Body", "Question", "Equation", "Answer"), "ID"):
        try:
            steps = equation_steps(str(row["Equation"]))
            answer = f"{float(row['Answer']):.10g}"
            question = f"{row['Body']} {row['Question']}"
            problems.append(Problem(task="svamp", id=row["ID"], question=question, answer=answer, steps=steps))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}:{number}: {error}") from None
    return problems


def equation_steps(equation: str) -> tuple[Step, ...]:
    """The steps of `( ( 4.0 + 13.0 ) * 15.0 )`: `4 + 13` gives 17, `17 * 15` gives 255."""
    text, steps = equation.replace(" ", ""), []
    number = r"-?\d+(?:\.\d+)?"
    innermost = re.compile(rf"\(({number})([-+*/])({number})\)")
    while match := innermost.search(text):
        left, op, right = float(match[1]), match[2], float(match[3])
        if op == "/" and right == 0:
            raise ValueError(f"the equation {equation!r} divides by zero")
        value = {"+": left + right, "-": left - right, "*": left * right, "/": left / right if right else 0.0}[op]
        steps.append(Step(expression=f"{left:.10g} {op} {right:.10g}", value=f"{value:.10g}"))
        text = text[: match.start()] + f"{value:.10f}" + text[match.end() :]
    if not re.fullmatch(number, text):
        raise ValueError(f"the equation {equation!r} is not a chain of + - * / in brackets")
    return tuple(steps)
