"""Figures of crosscoders: whose the latents are, what taking them away does, and how functions lie in space."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pyarrow.parquet as pq

from stillroom.files import read_lines
from stillroom.records import Finding
from stillroom.report.figures import COLOURS, DASHES, Figure, finished, interval

POINTS = 200
"""Points of a cumulative curve that are drawn."""


def crosscoder_figures(folders: Mapping[str, Path]) -> list[Figure]:
    """For each pair its numbers, histogram of NRN, changes of logit and parallelograms; then NRN over all."""
    figures: list[Figure] = []
    means: dict[str, Finding] = {}
    for name, folder in folders.items():
        findings = read_lines(folder / "findings.jsonl", Finding)
        means[name] = next(f for f in findings if f.metric == "mean NRN")
        own = [_histogram(name, folder, findings), *_changes(name, findings), *_curves(name, folder, findings)]
        figures += [figure._replace(made_of=(f"crosscoder {name}",)) for figure in own]
    together = tuple(f"crosscoder {name}" for name in folders)
    return [*figures, _means(means)._replace(made_of=together)] if len(means) > 1 else figures


def _anchor(kind: str, name: str) -> str:
    return f"crosscoder-{kind}-{name}"


def _rows(findings: Sequence[Finding]) -> list[tuple[Any, ...]]:
    return [
        (f.metric, f.position, f.value, f.low, f.high, f.n, "; ".join(f"{n.name}: {n.value:.3g}" for n in f.nulls))
        for f in findings
    ]


COLUMNS = ("measure", "where", "value", "low", "high", "n", "nulls")


def _histogram(name: str, folder: Path, findings: Sequence[Finding]) -> Figure:
    """NRN of the live latents of the pair's dictionary and of its nulls."""
    table = pq.read_table(folder / "latents.parquet", columns=["of", "nrn", "frequency"]).to_pylist()
    plot = go.Figure()
    for index, of in enumerate(dict.fromkeys(row["of"] for row in table)):
        live = [row["nrn"] for row in table if row["of"] == of and row["frequency"] > 0]
        edges = [i / 50 for i in range(51)]
        counts = [sum(low <= value < high for value in live) for low, high in pairwise(edges)]
        plot.add_scatter(
            x=[(low + high) / 2 for low, high in pairwise(edges)],
            y=[count / max(1, len(live)) for count in counts],
            name=of, mode="lines", line={"color": COLOURS[index], "dash": DASHES[index], "shape": "hvh"},
        )  # fmt: skip
    plot.update_xaxes(title="NRN: 0 is the reference's alone, 1 the subject's", range=[0, 1])
    plot.update_yaxes(title="share of live latents", tickformat=".0%")
    told = [f for f in findings if not f.metric.startswith(("parallelogram", "change of logit"))]
    return finished(
        _anchor("nrn", name),
        f"Crosscoder {name}: whose the latents are",
        "The share of each latent's decoder norm that lies in the subject (1-norm), and in the table the dictionary's "
        "numbers. Nulls: the subject beside itself, where all that spreads is the method's own, and where the recipe "
        "has one, beside a twin that differs by its seed alone. A latent that sparsity made one-sided has a high ν.",
        plot,
        COLUMNS,
        _rows(told),
    )


def _changes(name: str, findings: Sequence[Finding]) -> Iterator[Figure]:
    """Change of the right answer's logit by the share of latents that is taken out, for every operation."""
    told = [f for f in findings if f.metric.startswith("change of logit")]
    if not told:
        return
    plot = go.Figure()
    for index, sign in enumerate(dict.fromkeys(f.position for f in told)):
        mine = [f for f in told if f.position == sign]
        x = [float(f.metric.split()[-2]) for f in mine]
        line = {"color": COLOURS[index], "dash": DASHES[index]}
        plot.add_scatter(x=x, y=[f.value for f in mine], name=sign, error_y=interval(mine), line=line)
        control = [next(n.value for n in f.nulls if n.name == "matched control") for f in mine]
        plot.add_scatter(x=x, y=control, name=f"{sign}: matched control", opacity=0.5, mode="lines", line=line)
    plot.update_xaxes(title="share of the latents that fire at the operation (%)", type="log")
    plot.update_yaxes(title="change of the right answer's logit")
    yield finished(
        _anchor("logit", name),
        f"Crosscoder {name}: what its latents do",
        "The change of the right answer's logit when the most frequent latents of an operation with NRN above ½ are "
        "taken out of the subject's residual stream, its error kept. Null: as many latents with NRN up to ½ that fire "
        "as often and as strongly. Where the lines meet, the chosen latents are nothing special.",
        plot,
        COLUMNS,
        _rows(told),
    )


def _curves(name: str, folder: Path, findings: Sequence[Finding]) -> Iterator[Figure]:
    curves = json.loads((folder / "parallelogram.json").read_text())
    if not curves:
        return
    plot = go.Figure()
    for i, (function, people) in enumerate(curves.items()):
        for j, (person, losses) in enumerate(people.items()):
            step = max(1, len(losses) // POINTS)
            kept = losses[::step]
            plot.add_scatter(
                x=kept, y=[(k * step + 1) / len(losses) for k in range(len(kept))], name=f"{function}, {person}",
                mode="lines", line={"color": COLOURS[i], "dash": DASHES[j]},
            )  # fmt: skip
    plot.update_xaxes(title="parallelogram loss (0 is a parallelogram, about 1 is chance)")
    plot.update_yaxes(title="share of pairs of word pairs below", tickformat=".0%")
    yield finished(
        _anchor("parallelogram", name),
        f"Crosscoder {name}: do functions move all numbers alike?",
        "Cumulative parallelogram loss of numbers in a sentence, all dimensions but massive ones. The table holds the "
        "mean with its interval over words, in principal components too and at position 0. Null: inputs paired with "
        "the outputs of other numbers.",
        plot,
        COLUMNS,
        _rows([f for f in findings if f.metric.startswith("parallelogram")]),
    )


def _means(means: Mapping[str, Finding]) -> Figure:
    """Mean NRN of every pair beside its nulls."""
    plot = go.Figure()
    rows = list(means.values())
    plot.add_scatter(x=list(means), y=[f.value for f in rows], error_y=interval(rows), mode="markers", name="mean NRN")
    for index, null in enumerate(dict.fromkeys(n.name for f in rows for n in f.nulls), start=1):
        at = {name: n for name, f in means.items() for n in f.nulls if n.name == null}
        plot.add_scatter(
            x=list(at), y=[n.value for n in at.values()], error_y=interval(list(at.values())),
            mode="markers", name=null, marker={"symbol": "x", "color": COLOURS[index]},
        )  # fmt: skip
    plot.update_yaxes(title="mean NRN of live latents")
    return finished(
        "crosscoder-means",
        "Mean NRN of all crosscoders",
        "Intervals are over latents. Nulls: each subject beside itself and beside a re-seeded twin.",
        plot,
        COLUMNS,
        _rows(rows),
    )
