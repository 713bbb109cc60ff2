"""Figures: scores and findings as Plotly pictures, readable without colour, each with its table and its null.

Ink, paper and grid are the page's: it draws every figure in its own theme, light or dark (`script.html`).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go

from stillroom.files import read_lines
from stillroom.records import Finding, Score

MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")  # Okabe & Ito
MAJORITY = "majority"


class Figure(NamedTuple):
    anchor: str
    title: str
    caption: str
    """What is shown, and what would be seen if there were nothing to find."""
    plot: str
    """Plotly's own JSON; empty where the table is all there is."""
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    made_of: tuple[str, ...] = ()
    """The parents of the report that hold its numbers."""
    height: int = 420
    """In pixels, of the plot."""


def curve(index: int, marker: bool = True) -> dict[str, Any]:
    """Colour, dash and marker together, so that colour carries nothing alone."""
    line = {"color": COLOURS[index % len(COLOURS)], "dash": DASHES[index % len(DASHES)], "width": 2}
    return (
        {"line": line, "mode": "lines+markers", "marker": {"symbol": MARKERS[index % len(MARKERS)], "size": 9}}
        if marker
        else {"line": line, "mode": "lines"}
    )


def anchor_of(name: str) -> str:
    """A name as the end of an address: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("→", "to")).strip("-")


def finished(
    anchor: str,
    title: str,
    caption: str,
    plot: go.Figure,
    columns: tuple[str, ...],
    rows: list[tuple[Any, ...]],
    height: int = 420,
) -> Figure:
    """The plot in the house's style, with its caption and its table. `height` is in pixels."""
    plot.update_layout(
        template="none",
        margin={"l": 60, "r": 20, "t": 10, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "yref": "paper"},
        height=height,
    )
    return Figure(anchor_of(anchor), title, caption, plot.to_json(), columns, rows, height=height)


def interval(rows: Sequence[Any]) -> dict[str, Any]:
    """Error bars of scores or findings, as Plotly takes them."""
    above = [max(0.0, row.high - row.value) for row in rows]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": [max(0.0, r.value - r.low) for r in rows]}


def dotted(labels: Sequence[str], rows: Sequence[Finding], title: str) -> go.Figure:
    """Each finding as a point with its interval, in a line of its own, and each of its nulls beside it."""
    plot = go.Figure()
    for index, null in enumerate(dict.fromkeys(n.name for f in rows for n in f.nulls)):
        points = [(label, n) for label, f in zip(labels, rows, strict=True) for n in f.nulls if n.name == null]
        plot.add_scatter(
            x=[n.value for _, n in points], y=[label for label, _ in points], name=f"null: {null}", mode="markers",
            error_x=interval([n for _, n in points]),
            marker={"symbol": f"{MARKERS[(index + 1) % 8]}-open", "size": 8, "color": COLOURS[1 + index % 7]},
            offsetgroup=null, orientation="h",
        )  # fmt: skip
    plot.add_scatter(
        x=[f.value for f in rows], y=list(labels), name="measured", mode="markers", error_x=interval(rows),
        marker={"symbol": "circle", "size": 10, "color": COLOURS[0]}, offsetgroup="measured", orientation="h",
    )  # fmt: skip
    plot.update_layout(scattermode="group", scattergap=0.4)
    plot.update_xaxes(title=title)
    plot.update_yaxes(automargin=True, autorange="reversed", tickfont={"size": 11})
    return plot


def reach(rows: Sequence[Finding]) -> list[float]:
    """The range of an axis that holds all intervals and nulls with a little room; grouped points would begin at 0."""
    ends = [end for f in rows for end in (f.low, f.high)]
    ends += [end for f in rows for null in f.nulls for end in (null.low, null.high)]
    room = 0.05 * (max(ends) - min(ends)) or 0.01
    return [min(ends) - room, max(ends) + room]


def accuracy_figure(scores: Sequence[Score]) -> Figure:
    """Accuracy on test problems by number of steps, the split `longer` at its end, for every student and seed."""
    shown = [
        s
        for s in scores
        if s.metric == "accuracy" and (s.split == "test" or (s.split == "longer" and s.group != "all"))
    ]
    names = [*dict.fromkeys((s.student, s.seed) for s in shown if s.student != MAJORITY), (MAJORITY, 0)]
    seeds = len({seed for _, seed in names})
    plot = go.Figure()
    for index, (name, seed) in enumerate(names):
        rows = sorted(
            (s for s in shown if (s.student, s.seed) == (name, seed) and s.group != "all"), key=lambda s: int(s.group)
        )
        label = name if seeds == 1 or name == MAJORITY else f"{name}, seed {seed}"
        plot.add_scatter(
            x=[int(s.group) for s in rows],
            y=[s.value for s in rows],
            name=label,
            error_y=interval(rows),
            offsetgroup=label,
            **curve(index),
        )
    plot.update_layout(scattermode="group", scattergap=0.8)
    plot.update_xaxes(title="steps of the problem", dtick=1)
    plot.update_yaxes(title="accuracy", range=[0, 1.04], tickformat=".0%")
    return finished(
        "accuracy",
        "Accuracy by number of steps",
        "Greedy answers to test problems, none of which is in the training data, in percent with 95 % Wilson "
        "intervals. Null: "
        "`majority` always gives the most frequent training answer; a student that learned nothing lies on it. Where "
        "the task has the split `longer`, it is the last point: one step more than any training problem.",
        plot,
        ("student", "seed", "split", "steps", "accuracy", "low", "high", "n"),
        [(s.student, s.seed, s.split, s.group, s.value, s.low, s.high, s.n) for s in shown],
        height=320,
    )


def nulls_of(finding: Finding) -> str:
    return "; ".join(f"{null.name}: {null.value:.3g}" for null in finding.nulls) or "none"


def loss_figure(losses: Mapping[str, list[dict[str, float]]]) -> Figure:
    """The training loss of every student by update, in nats on a logarithmic axis."""
    plot = go.Figure()
    for index, (name, rows) in enumerate(losses.items()):
        plot.add_scatter(
            x=[r["step"] for r in rows], y=[_loss(r) for r in rows], name=name, **curve(index, marker=False)
        )
    plot.update_xaxes(title="updates")
    plot.update_yaxes(title="training loss (nats)", type="log")
    return finished(
        "loss",
        "Training loss",
        "The sum of the weighted terms of each run's loss, in nats a token. Completions differ between students, so "
        "the curves compare each student with itself over time, not with the others.",
        plot,
        ("run", "update", "loss", "learning rate", "gradient norm"),
        [
            (name, r["step"], _loss(r), r["learning_rate"], r["gradient_norm"])
            for name, rows in losses.items()
            for r in rows
        ],
    )


def _loss(row: Mapping[str, float]) -> float:
    """The sum of the terms that a row of the loop's log holds."""
    return sum(value for name, value in row.items() if name not in ("step", "learning_rate", "gradient_norm"))


def accuracy_table(path: Path) -> str:
    """Accuracy on test problems by number of steps, as plain text for a terminal."""
    shown = [s for s in read_lines(path, Score) if s.split == "test" and s.metric == "accuracy"]
    groups = list(dict.fromkeys(s.group for s in shown))
    value = {(s.student, s.seed, s.group): s.value for s in shown}
    names = {(s.student, s.seed): s.student if s.seed == 0 else f"{s.student}, seed {s.seed}" for s in shown}
    width = max(15, *map(len, names.values())) + 1
    lines = [
        "accuracy on test problems by number of steps (%)",
        " " * width + "".join(f"{group:>8}" for group in groups),
    ]
    for (student, seed), name in names.items():
        cells = "".join(f"{100 * value[student, seed, group]:8.1f}" for group in groups)
        lines.append(f"{name:{width}}{cells}")
    return "\n".join(lines)
