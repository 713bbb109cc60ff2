"""Sweeps: which combinations of values are to be an experiment each, and what each combination is called.

A sweep is one grid, or several whose cells are put together: levels in one format, say, and formats at one level.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stillroom.errors import ConfigError
from stillroom.recipe_files import override

Values = list[Any] | dict[str, Any]
"""What a field is to be in turn; a mapping gives each value a name for the tables."""
Grid = dict[str, Values]

FIXED = ("settings", "sweep")
"""What no sweep may vary: the one changes no result, the other is itself."""


class Cell(NamedTuple):
    """One combination: its name, the recipe's data with its values in place, and the label of each field."""

    name: str
    data: dict[str, Any]
    labels: dict[str, str]


def short(fields: Iterable[str]) -> dict[str, str]:
    """The shortest ends of dotted names that still tell the fields apart: `granularity` for `teacher.granularity`."""
    parts = {field: field.split(".") for field in fields}

    def alone(end: list[str]) -> bool:
        return sum(name[-len(end) :] == end for name in parts.values()) == 1

    ends = {field: [name[-size:] for size in range(1, len(name) + 1)] for field, name in parts.items()}
    return {field: ".".join(next((end for end in ends[field] if alone(end)), name)) for field, name in parts.items()}


def label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def grid_cells(data: dict[str, Any], grids: Sequence[Mapping[str, Values]], where: str) -> Iterator[Cell]:
    """Every combination of every grid, in order. Raises `ConfigError`.

    Two combinations of one name are one if they are the same, and refused if they are not.
    """
    names = short(dict.fromkeys(field for grid in grids for field in grid))
    met: dict[str, dict[str, Any]] = {}
    for grid in grids:
        for field in grid:
            if field.partition(".")[0] in FIXED:
                raise ConfigError(f"{where}: sweep.{field}: this changes no result; sweep a field that does")
        for choice in itertools.product(*(_labelled(values) for values in grid.values())):
            labels = {field: name for field, (name, _) in zip(grid, choice, strict=True)}
            chosen = [f"{field}={json.dumps(value)}" for field, (_, value) in zip(grid, choice, strict=True)]
            name = " ".join(f"{names[field]}={told}" for field, told in labels.items())
            cell = override(data, chosen)
            if met.setdefault(name, cell) != cell:
                raise ConfigError(f"{where}: sweep: two combinations are called {name!r}; give the values names")
            yield Cell(name, cell, labels)


def _labelled(values: Values) -> list[tuple[str, Any]]:
    return list(values.items()) if isinstance(values, dict) else [(label(value), value) for value in values]


def labels_of(resolved: Mapping[str, Any], own: Mapping[str, str], grids: Sequence[Grid]) -> dict[str, str]:
    """The label of every field that any grid varies, for a cell whose own grid may leave some of them alone."""
    known = {
        (field, label(value)): name
        for grid in grids
        for field, values in grid.items()
        for name, value in _labelled(values)
    }
    found = {}
    for field in dict.fromkeys(field for grid in grids for field in grid):
        value = _at(resolved, field)
        if field in own or value is not None:
            found[field] = own.get(field) or known.get((field, label(value)), label(value))
    return found


def chosen(sweep: Grid | Sequence[Grid]) -> dict[str, str]:
    """The labels of one cell, whose sweep holds one for every field."""
    assert isinstance(sweep, dict), "a cell holds one label a field"
    return {field: str(values[0]) for field, values in sweep.items() if isinstance(values, list)}


def common(sweeps: Sequence[Grid | Sequence[Grid]]) -> str:
    """What several cells agree in, as a name."""
    labels = [chosen(sweep) for sweep in sweeps]
    names = short(dict.fromkeys(field for one in labels for field in one))
    agreed = {f: told for f, told in labels[0].items() if all(other.get(f) == told for other in labels)}
    return " ".join(f"{names[field]}={told}" for field, told in agreed.items())


def _at(data: Any, field: str) -> Any:
    """The value at a dotted name; None where there is none."""
    for part in field.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None
    return data
