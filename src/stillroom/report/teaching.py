"""Did the teacher obey? The compliance report of a run's rationales, and what the gates let through."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from stillroom.report.figures import COLOURS, MARKERS, Figure, finished

MEASURES = ("words", "sentences", "steps", "equations", "accuracy", "truncated", "kept")


def compliance_figures(folders: Mapping[str, Path]) -> list[Figure]:
    """One table of every teacher's cells; and a picture of words by level where a teacher wrote at several."""
    cells: list[dict[str, Any]] = []
    families: list[dict[str, Any]] = []
    for folder in folders.values():
        told = json.loads((folder / "compliance.json").read_bytes())
        cells += told["cells"]
        families += told["families"]
    if not cells:
        return []
    columns = (
        "dataset",
        "teacher",
        "format",
        "level",
        "n",
        *MEASURES,
        "equations a step",
        "distinct-2",
        "self-similarity",
    )
    rows = [
        (
            *one["cell"], one["n"], *(_spread(one[name]) for name in MEASURES),
            one["equations_a_step"], one["distinct_2"], one["self_similarity"],
        )
        for one in cells
    ]  # fmt: skip
    verdicts = " ".join(_verdict(one) for one in families) or "One level alone was taught: there is none to compare."
    caption = (
        "What the teacher wrote, with 95 % intervals: means a rationale, and shares that are right, cut off, and let "
        "through "
        "by the gates. Accuracy is left out for the task's own solutions, which are right by construction. Null: a "
        "teacher "
        f"that does not obey writes equally long rationales at every level. {verdicts}"
    )
    figure = _levels(cells, caption, columns, rows) or Figure(
        "compliance", "What the teacher wrote", caption, "", columns, rows
    )
    return [figure._replace(made_of=tuple(folders))]


def _spread(told: Sequence[float | None] | None) -> str | None:
    """An interval in words; nothing where it was not measured or is no number."""
    return None if told is None or None in told else f"{told[0]:.3g} [{told[1]:.3g}, {told[2]:.3g}]"


def _verdict(one: Mapping[str, Any]) -> str:
    blurred = ", ".join(f"{coarse} and {fine}" for coarse, fine in one["blurred"])
    name = f"{one['dataset']} {one['teacher']} {one['format']}"
    said = f"levels {blurred} do not separate in length" if blurred else "every level is longer than those below"
    return f"{name}: rank correlation of level and words {_spread(one['monotonicity'])}; {said}."


def _levels(
    cells: Sequence[Mapping[str, Any]], caption: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> Figure | None:
    """Words against level, a line for every dataset, teacher and format; None for a single level."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for one in cells:
        if one["cell"][3] is not None:
            lines.setdefault(" ".join(one["cell"][:3]), []).append(one)
    if not any(len(line) > 1 for line in lines.values()):
        return None
    plot = go.Figure()
    for index, (name, line) in enumerate(lines.items()):
        ordered = sorted(line, key=lambda one: one["cell"][3])
        words = [one["words"] for one in ordered]
        plot.add_scatter(
            x=[one["cell"][3] for one in ordered], y=[value for value, _, _ in words], name=name, mode="lines+markers",
            error_y={
                "type": "data", "symmetric": False, "array": [high - value for value, _, high in words],
                "arrayminus": [value - low for value, low, _ in words],
            },
            marker={"symbol": MARKERS[index % len(MARKERS)], "color": COLOURS[index % len(COLOURS)], "size": 9},
        )  # fmt: skip
    plot.update_xaxes(title="granularity (1 is the coarsest)", dtick=1)
    plot.update_yaxes(title="words a rationale", rangemode="tozero")
    return finished("compliance", "What the teacher wrote", caption, plot, columns, rows)
