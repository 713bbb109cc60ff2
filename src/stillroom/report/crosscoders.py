"""Figures of crosscoders: whose the latents are, what taking them away does, and how functions lie in space."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
import pyarrow.parquet as pq

from stillroom.files import read_lines
from stillroom.records import Finding
from stillroom.report.causes import COLUMNS, cause_figures, told
from stillroom.report.figures import COLOURS, DASHES, Figure, dotted, finished, reach

POINTS = 200
"""Points of a cumulative curve that are drawn."""
SHUFFLED = ", shuffled pairs"
SPREAD = "mean distance of NRN from ½"
BINS = 51
"""Of the histogram: an odd number, so that ½ lies in the middle of one."""


def crosscoder_figures(folders: Mapping[str, Path]) -> list[Figure]:
    """For each pair its histogram of NRN, what its latents do, and parallelograms; then NRN over all."""
    figures: list[Figure] = []
    means: dict[str, Finding] = {}
    for name, folder in folders.items():
        findings = read_lines(folder / "findings.jsonl", Finding)
        if mean := next((f for f in findings if f.metric == "mean NRN"), None):  # none where no latent is live
            means[name] = mean
        own = [_histogram(name, folder, findings), *cause_figures(name, findings), *_curves(name, folder, findings)]
        figures += [figure._replace(made_of=(f"crosscoder {name}",)) for figure in own]
    together = tuple(f"crosscoder {name}" for name in folders)
    return [*figures, _means(means)._replace(made_of=together)] if len(means) > 1 else figures


def _anchor(kind: str, name: str) -> str:
    return f"crosscoder-{kind}-{name}"


def _histogram(name: str, folder: Path, findings: Sequence[Finding]) -> Figure:
    """NRN of the live latents of the pair's dictionary and of its nulls."""
    table = pq.read_table(folder / "latents.parquet", columns=["of", "nrn", "frequency"]).to_pylist()
    plot = go.Figure()
    for index, of in enumerate(dict.fromkeys(row["of"] for row in table)):
        live = [row["nrn"] for row in table if row["of"] == of and row["frequency"] > 0]
        counted = Counter(min(BINS - 1, int(value * BINS)) for value in live)
        plot.add_scatter(
            x=[(place + 0.5) / BINS for place in range(BINS)],
            y=[counted[place] / max(1, len(live)) for place in range(BINS)],
            name=of, mode="lines", line={"color": COLOURS[index], "dash": DASHES[index], "shape": "hvh"},
        )  # fmt: skip
    plot.update_xaxes(title="NRN: 0 is the reference's alone, 1 the subject's", range=[0, 1])
    plot.update_yaxes(title="share of live latents", tickformat=".0%")
    dictionary = [f for f in findings if not f.position and not f.metric.startswith("parallelogram")]
    return finished(
        _anchor("nrn", name),
        f"Crosscoder {name}: whose the latents are",
        "The share of each latent's decoder norm that lies in the subject (1-norm), and in the table the dictionary's "
        "numbers. Nulls: the subject beside itself, where all that spreads is the method's own, and where the recipe "
        "has one, beside a twin that differs by its seed alone. A latent that sparsity made one-sided has a high ν; "
        "in the means of ν what lies beyond −1 and 2 counts as those. " + _in_words(dictionary),
        plot,
        COLUMNS,
        told(dictionary),
    )


def _in_words(findings: Sequence[Finding]) -> str:
    """What a reader looks for first, each measure with its nulls."""
    of = {f.metric: f for f in findings}

    def told_of(metric: str) -> str:
        nulls = "".join(f", {null.name} {null.value:.3f}" for null in of[metric].nulls)
        return f"{metric} {of[metric].value:.3f}{nulls}"

    first = ("explained variance, reference", "explained variance, subject", "dead latents", "mean NRN", SPREAD)
    return f"Here: {'; '.join(told_of(metric) for metric in first if metric in of)}."


def _curves(name: str, folder: Path, findings: Sequence[Finding]) -> Iterator[Figure]:
    """Of each function the share of pairs of word pairs below every loss, each model with its null."""
    curves = json.loads((folder / "parallelogram.json").read_text())
    for function, people in curves.items():
        plot = go.Figure()
        for index, (person, losses) in enumerate(people.items()):
            step = max(1, len(losses) // POINTS)
            kept = losses[::step]
            null = person.endswith(SHUFFLED)
            plot.add_scatter(
                x=kept, y=[(k * step + 1) / len(losses) for k in range(len(kept))], name=person, mode="lines",
                line={"color": COLOURS[index // 2], "dash": DASHES[index], "width": 1 if null else 2},
            )  # fmt: skip
        plot.update_xaxes(title="parallelogram loss (0 is a parallelogram, about 1 is chance)", rangemode="tozero")
        plot.update_yaxes(title="share of pairs below", tickformat=".0%", range=[0, 1.02])
        mine = [f for f in findings if f.metric.startswith(f"parallelogram loss of {function} in ")]
        yield finished(
            _anchor(f"parallelogram-{function}", name),
            f"Crosscoder {name}: does {function} move all words alike?",
            "Cumulative parallelogram loss of words in a sentence, all dimensions but massive ones. The table holds "
            "the mean with its interval over words, in principal components too and at position 0. Null: inputs paired "
            "with the outputs of other words; where a model's curve is its null's, the function is no direction.",
            plot,
            COLUMNS,
            told(mine),
            height=360,
        )


def _means(means: Mapping[str, Finding]) -> Figure:
    """Mean NRN of every pair beside its nulls."""
    rows = list(means.values())
    plot = dotted(list(means), rows, "mean NRN of live latents")
    plot.update_xaxes(range=reach(rows))
    return finished(
        "crosscoder-means",
        "Mean NRN of all crosscoders",
        "Intervals are over latents. Nulls: each subject beside itself and beside a re-seeded twin.",
        plot,
        COLUMNS,
        told(rows),
        height=150 + 50 * len(rows),
    )
