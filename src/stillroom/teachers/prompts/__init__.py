"""Prompts for teachers: six levels of granularity × four formats, with one worked example for each kind of task.

`levels.yaml` holds the levels' contracts and the formats, `KIND.yaml` one question of that kind, solved at every level
in every format. This module renders them; it knows no teacher and no model.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from stillroom.errors import UsageError, unknown
from stillroom.records import Problem

LEVELS = range(1, 7)
FORMATS = ("plain", "least-to-most", "rephrase-and-respond", "symbolic")
KINDS = ("numeric", "math", "choice", "boolean", "text")
OTHER_NAMES = {"bsm": "least-to-most", "rar": "rephrase-and-respond", "sym": "symbolic"}
"""The formats' names in the granularity study's files (arXiv 2502.18001)."""


@cache
def _file(name: str) -> Any:
    return yaml.safe_load((resources.files("stillroom.teachers.prompts") / f"{name}.yaml").read_text("utf-8"))


def format_named(name: str) -> str:
    """A format by its name, or by its name in the study's files. Raises `UsageError` for another."""
    found = OTHER_NAMES.get(name, name)
    if found not in FORMATS:
        raise UsageError(unknown("format", name, FORMATS))
    return found


def contract(granularity: int) -> Mapping[str, str]:
    """What a level states (`states`) and how much of it (`extent`). Raises `UsageError` for a level that is none."""
    if granularity not in LEVELS:
        raise UsageError(f"granularity is {granularity}; expected {LEVELS[0]} (coarse) to {LEVELS[-1]} (fine)")
    level: Mapping[str, str] = _file("levels")["levels"][granularity]
    return level


def example(kind: str, granularity: int, format: str) -> tuple[str, str]:
    """The worked example of a kind: its question, and its solution at one level in one format."""
    data = _file(kind)
    choices = "".join(f"\n({'ABCDEFGH'[i]}) {text}" for i, text in enumerate(data.get("choices", ())))
    solution = data[format_named(format)][granularity]
    return f"{data['question']}{choices}", f"{solution}\nThe answer is {data['answer']}"


def messages(problem: Problem, granularity: int, format: str) -> list[dict[str, str]]:
    """The chat that asks a teacher for a rationale: contract and format, the example, then the problem's question."""
    level, texts, name = contract(granularity), _file("levels"), format_named(format)
    system = texts["system"].format(
        level=granularity,
        states=level["states"],
        extent=level["extent"],
        format=texts["formats"][name],
        answer=texts["answers"][problem.kind],
    )
    question, solution = example(problem.kind, granularity, name)
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": solution},
        {"role": "user", "content": problem.question},
    ]
