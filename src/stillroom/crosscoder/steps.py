"""What a problem's text says where: the tokens that belong to each step, to its operation and to its value.

A synthetic task states one number for the start and one for each step, in order. A problem whose text holds more
numbers or fewer (a distractor, a benchmark's prose) is left out, since its steps cannot be told apart by counting.
"""

import re
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from stillroom.crosscoder.data import Tokens
from stillroom.records import Problem
from stillroom.students import Student

NUMBER = re.compile(r"\s*\d+")


def operation(expression: str) -> str:
    """The sign of a step such as `3 + 4`, or "" where there is none."""
    found = re.search(r"\s([-+*/×÷])\s", expression)
    return found[1] if found else ""


def operations(problems: Sequence[Problem]) -> list[str]:
    """All that occur, in the order of their signs."""
    return sorted({operation(step.expression) for p in problems for step in p.steps} - {""})


def needs(problem: Problem, sign: str) -> bool:
    return any(operation(step.expression) == sign for step in problem.steps)


def told_at(student: Student, problem: Problem, ids: Sequence[int]) -> list[tuple[str, ...]]:
    """For each token of a document what it tells of: the operation, the place and the value of a step, from the step's
    number on and up to the next; nothing elsewhere."""
    pieces = [str(student.tokenizer.decode([token])) for token in ids]
    numbers = [i for i, piece in enumerate(pieces) if NUMBER.fullmatch(piece)]
    asked = len(student.prompt(problem.question))
    numbers = [i for i in numbers if i < asked]
    if len(numbers) != len(problem.steps) + 1:
        return [()] * len(ids)
    out: list[tuple[str, ...]] = [()] * len(ids)
    ends = [*numbers[2:], asked]
    for place, (step, start, end) in enumerate(zip(problem.steps, numbers[1:], ends, strict=True), 1):
        out[start:end] = [(operation(step.expression), f"step {place}", f"value {step.value}")] * (end - start)
    return out


def masks(told: Sequence[Sequence[Collection[str]]], tokens: Tokens) -> dict[str, Tensor]:
    """For each category that documents tell of, which tokens (N) are of it; `told` by document and position."""
    found: dict[str, list[int]] = {}
    for row, (document, at) in enumerate(zip(tokens.document_N.tolist(), tokens.position_N.tolist(), strict=True)):
        for category in told[document][at]:
            found.setdefault(category, []).append(row)
    out = {}
    for category in sorted(set(found) - {""}):
        out[category] = torch.zeros(len(tokens), dtype=torch.bool)
        out[category][found[category]] = True
    return out
