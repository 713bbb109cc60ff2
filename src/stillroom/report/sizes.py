"""Figures of a sweep's crosscoders by size: NRN and parallelogram losses, beside what distillation gained."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from stillroom.records import Finding
from stillroom.report.causes import COLUMNS, told
from stillroom.report.figures import COLOURS, MARKERS, Figure, curve, finished, interval, reach

GAINED = "accuracy gained"
SHAPE = "parallelogram loss of "
Lines = Mapping[str, Mapping[str, Finding]]
"""For each line's name a finding by cell."""


def size_figures(findings: Sequence[Finding]) -> list[Figure]:
    """Mean NRN and accuracy gained of every pair, and the parallelogram loss of every function, a point a cell."""
    nrn, gained = (_by_pair([f for f in findings if f.metric == metric]) for metric in ("mean NRN", GAINED))
    rest = [f for f in findings if f.metric != GAINED and not f.metric.startswith(SHAPE)]
    means = _drawn(
        "crosscoder-sizes-nrn",
        "Whose the latents are, by size",
        "Mean NRN of live latents (0 is the reference's alone, 1 the subject's), with intervals over latents of one "
        "dictionary, and in the table the other numbers of every dictionary. Null: the subject beside itself, and "
        "beside a twin that differs by its seed alone. Three sizes show a direction at most.",
        nrn, "mean NRN", rest,
    )  # fmt: skip
    skill = _drawn(
        "crosscoder-sizes-gained",
        "What distillation gained, by size",
        "The subject's accuracy on test problems minus the reference's, paired by problem. Null: 0.",
        gained, GAINED, [f for f in findings if f.metric == GAINED],
    )  # fmt: skip
    return [*means, *skill, *_shapes(findings)]


def _shapes(findings: Sequence[Finding]) -> Iterator[Figure]:
    by: dict[str, dict[str, dict[str, Finding]]] = {}
    kept: dict[str, list[Finding]] = {}
    for f in findings:
        if f.metric.startswith(SHAPE):
            function, _, rest = f.metric.removeprefix(SHAPE).partition(" in ")
            person, _, dimensions = rest.partition(", ")
            kept.setdefault(function, []).append(f)
            if dimensions == "all dimensions":
                by.setdefault(function, {}).setdefault(person, {})[_cell(f.subject)] = f
    for function, lines in by.items():
        yield from _drawn(
            f"crosscoder-sizes-{function}",
            f"Does {function} move all words alike? By size",
            "Mean parallelogram loss in a sentence, all dimensions but massive ones, with intervals over words; the "
            "table has 20 principal components too. Null: inputs paired with the outputs of other words.",
            lines, "parallelogram loss (1 is chance)", kept[function],
        )  # fmt: skip


def _by_pair(findings: Sequence[Finding]) -> Lines:
    lines: dict[str, dict[str, Finding]] = {}
    for f in findings:
        lines.setdefault(f"{_name(f.reference)} → {_name(f.subject)}", {})[_cell(f.subject)] = f
    return lines


def _name(told_of: str) -> str:
    """`distilled [width=64]` → `distilled`."""
    return told_of.partition(" [")[0]


def _cell(told_of: str) -> str:
    return told_of.partition(" [")[2].removesuffix("]")


def _drawn(
    anchor: str, title: str, caption: str, lines: Lines, measure: str, rows: Sequence[Finding]
) -> Iterator[Figure]:
    """A line with intervals for each name over the cells, its nulls as open markers of its colour beside it."""
    if not lines:
        return
    plot = go.Figure()
    for index, (name, by_cell) in enumerate(lines.items()):
        points, group = list(by_cell.values()), {"offsetgroup": name}
        plot.add_scatter(
            x=list(by_cell), y=[f.value for f in points], name=name, error_y=interval(points), **curve(index), **group
        )
        for place, null in enumerate(dict.fromkeys(n.name for f in points for n in f.nulls)):
            at = {cell: n for cell, f in by_cell.items() for n in f.nulls if n.name == null}
            symbol = f"{MARKERS[(index + place + 1) % len(MARKERS)]}-open"
            plot.add_scatter(
                x=list(at), y=[n.value for n in at.values()], name=f"{name}: {null}", mode="markers",
                error_y=interval(list(at.values())), **group,
                marker={"symbol": symbol, "size": 8, "color": COLOURS[index % len(COLOURS)]},
            )  # fmt: skip
    plot.update_layout(scattermode="group", scattergap=0.8)
    every = [f for by_cell in lines.values() for f in by_cell.values()]
    plot.update_yaxes(title=measure, range=reach(every), tickformat=".0%" if measure == GAINED else None)
    columns: tuple[Any, ...] = ("subject", "reference", *COLUMNS)
    cells = [(f.subject, f.reference, *row) for f, row in zip(rows, told(rows), strict=True)]
    yield finished(anchor, title, caption, plot, columns, cells)
