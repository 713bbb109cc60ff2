"""A lens over training: one measure at every checkpoint that a student kept, so that one sees when and where first.

Students keep log-spaced checkpoints of their weights with `fit.snapshots=8`. Each is opened as the student would be, a
part of an adapter included, and looked at beside the base by the lens that the config names. Every finding comes back
with its update behind the metric; one more for every cell that the lens chose on validation problems says at which
update it first lies beyond its first null.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import nn

from stillroom.config import Config
from stillroom.errors import DataError, UsageError, unknown
from stillroom.lenses.selection import CHOSEN
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.progress import say
from stillroom.records import Finding, Null
from stillroom.students import Student, load

SNAPSHOTS = "snapshots"
FIRST = "first update beyond the null: "


class OverTrainingConfig(Config):
    name: Literal["over_training"] = "over_training"
    lens: dict[str, Any] = {"name": "logit_lens"}
    """The name and the settings of the lens that looks at every checkpoint."""


def snapshots(folder: Path) -> dict[int, Path]:
    """The checkpoints that a student kept, by update, the earliest first."""
    found = {int(m[1]): p for p in (folder / SNAPSHOTS).glob("*") if (m := re.fullmatch(r"step-(\d+)\..*", p.name))}
    return dict(sorted(found.items()))


@torch.no_grad()
def at_snapshot(folder: Path, file: Path, device: str) -> Student:
    """A student as it was at a checkpoint. Raises `DataError` for weights that it does not have."""
    student = load(folder, device)
    inside = {"model": student.model, "projection": student.projection}
    for name, tensor in load_file(file).items():
        part, _, rest = name.partition(".")
        module: nn.Module | None = inside.get(part)
        own = dict(module.named_parameters(remove_duplicate=False)).get(rest) if module is not None else None
        if own is None or own.shape != tensor.shape:
            raise DataError(f"{file}: {name} of shape {tuple(tensor.shape)} is no weight of the student in {folder}")
        own.copy_(tensor)
    return student.plain()


def look(table: Mapping[str, tuple[Any, ...]], config: OverTrainingConfig, subjects: Subjects) -> list[Finding]:
    """The findings of the lens of `table` that the config names, for all checkpoints of all students that kept some.

    Raises `UsageError` for an unknown lens, and for itself.
    """
    known = {name for name in table if name != config.name}
    name = str(config.lens.get("name"))
    if name not in known:
        raise UsageError(f"over_training.lens.name: {unknown('lens', name, known)}")
    kind, see = table[name][:2]
    settings = kind.parse(config.lens, "over_training.lens")
    found: list[Finding] = []
    held = {who: snapshots(folder) for who, folder in subjects.folders.items() if who not in (BASE, *subjects.twins)}
    for who, kept in held.items():
        folder = subjects.folders[who]
        series: dict[int, list[Finding]] = {}
        for update, file in kept.items():
            device = str(subjects.students[who].model.device)
            then = {BASE: subjects.students[BASE], who: at_snapshot(folder, file, device)}
            rows = see(settings, replace(subjects, students=then, twins={}))
            series[update] = [row for row in rows if row.subject == who]
        found += [_at(row, update) for update, rows in series.items() for row in rows]
        found += first_beyond(series)
    if not any(held.values()):
        say("  over_training: no student kept checkpoints; train them with fit.snapshots=8")
    return found


def _at(row: Finding, update: int) -> Finding:
    return row.model_copy(update={"lens": "over_training", "metric": f"{row.lens}: {row.metric}, update {update}"})


def first_beyond(series: Mapping[int, Sequence[Finding]]) -> Iterator[Finding]:
    """For every measure whose cell was chosen on validation problems: the first update from which on it lies beyond its
    first null for good, intervals apart; nothing where it never does. The null is the number of the last update: what
    would be said of a measure that shows at the end alone. The interval reaches back to the update before."""
    updates = list(series)
    metrics = dict.fromkeys(row.metric for rows in series.values() for row in rows if CHOSEN in row.metric)
    for metric in metrics:
        chosen = {u: row for u, rows in series.items() for row in rows if row.metric == metric}
        beyond = [u for u in updates if u in chosen and chosen[u].nulls and chosen[u].low > chosen[u].nulls[0].high]
        since = next((u for u in updates if set(updates[updates.index(u) :]) <= set(beyond)), None)
        if since is None:
            continue
        before = updates[updates.index(since) - 1] if updates.index(since) else 0
        last = Null(name="the last update", value=updates[-1], low=updates[-1], high=updates[-1])
        told = {"value": since, "low": before, "high": since, "nulls": (last,), "p": None, "adjusted": None}
        row = chosen[since]
        yield row.model_copy(update={"lens": "over_training", "metric": f"{FIRST}{row.lens}: {metric}", **told})
