"""The pipeline: a recipe becomes a plan of stages, and the plan is carried out in the store.

    problems ▶ contamination
    problems ▶ rationales ▶ kept ▶ lessons ▶ primer ▶ base ▶ student ▶ predictions ▶ scores ┐
                                                ├▶ lens, crosscoder ────────────────┼▶ report
                                                ├▶ faithfulness, cost, memorising ──┘
                                                └▶ traces ▶ reader ▶ oracle, of students that think

Every stage reads its parents' folders and writes its own. The plan is made before anything runs, so a wrong name or a
missing data file is told before anything is written. A sweep is one such plan for every cell, what they share made
once, and a comparison of their scores.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stillroom.errors import UsageError, unknown
from stillroom.lenses import LENSES
from stillroom.pipeline.comparing import comparison
from stillroom.pipeline.planner import STAGES, Planner
from stillroom.pipeline.running import run
from stillroom.recipes import Recipe
from stillroom.recipes.sweeps import common
from stillroom.store import Stage
from stillroom.tasks import TASKS
from stillroom.teachers import TEACHERS

__all__ = ["STAGES", "Planner", "plan", "run", "schema", "upto"]


def plan(where: str, cells: Mapping[str, Recipe]) -> list[Stage]:
    """The stages of one experiment, or of every cell of a sweep and of their comparison."""
    plans = _distinct({cell: Planner(_where(where, cell), recipe).plan() for cell, recipe in cells.items()})
    if len(plans) == 1:
        return next(iter(plans.values()))
    holding: dict[str, list[str]] = {}
    for cell, stages in plans.items():
        for stage in stages:
            holding.setdefault(stage.key, []).append(cell)
    merged: dict[str, Stage] = {}
    for stages in plans.values():
        for stage in stages:
            merged.setdefault(stage.key, replace(stage, name=stage.name + _in(holding[stage.key], cells, len(plans))))
    return [*merged.values(), *comparison(where, cells, plans)]


def _in(holding: list[str], cells: Mapping[str, Recipe], count: int) -> str:
    """Which cells a stage belongs to, for its name: nothing where it belongs to all."""
    if len(holding) == count:
        return ""
    told = holding[0] if len(holding) == 1 else common([cells[cell].sweep for cell in holding])
    return f" [{told}]" if told else ""


def _where(where: str, cell: str) -> str:
    return f"{where} [{cell}]" if cell else where


def _distinct(plans: Mapping[str, list[Stage]]) -> dict[str, list[Stage]]:
    """The plans without those that come to the same stages as one before, as grids that overlap have them."""
    met: dict[frozenset[str], str] = {}
    for cell, stages in plans.items():
        met.setdefault(frozenset(stage.key for stage in stages if stage.stage != "report"), cell)
    return {cell: plans[cell] for cell in met.values()}


def upto(plan: list[Stage], until: str | None) -> list[Stage]:
    """The stages of a plan up to the kind `until`, that kind included: a sweep's overview, a report that is made of its
    comparison, comes no earlier than that."""
    if until is None:
        return plan
    if until not in STAGES:
        raise UsageError(unknown("stage", until, STAGES))
    last = STAGES.index(until)
    return [stage for stage in plan if all(STAGES.index(one.stage) <= last for one in (stage, *stage.parents.values()))]


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors: every task, teacher and lens spelled out."""
    result = Recipe.model_json_schema()
    for field, table in (("task", TASKS), ("teacher", TEACHERS)):
        result["properties"][field] = {"oneOf": [row.config.model_json_schema() for row in table.values()]}
    properties = {name: lens.config.model_json_schema() for name, lens in LENSES.items()}
    result["properties"]["lenses"] = {"type": "object", "properties": properties, "additionalProperties": False}
    return result
