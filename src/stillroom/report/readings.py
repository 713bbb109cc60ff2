"""Figures of lenses that read layer by layer: values at the answer position, and how far weights moved."""

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from stillroom.records import Finding
from stillroom.report.figures import COLOURS, Figure, curve, finished, interval, nulls_of


class Reading(NamedTuple):
    """A lens that reads values off single layers: its measure, and what the caption says of it and of its null."""

    metric: str
    axis: str
    caption: str
    null: str


READINGS = {
    "logit_lens": Reading(
        " in top 5",
        "share in the top 5",
        "the share of test problems in which the value of that step is among the five tokens that the lens ranks "
        "highest, "
        "after `The answer is` and without reasoning in words",
        "the same reading of another problem's value",
    ),
    "tuned_lens": Reading(
        " in top 5",
        "share in the top 5",
        "the share of test problems in which the value of that step is among the five tokens that the tuned lens ranks "
        "highest, after `The answer is` and without reasoning in words",
        "the same reading of another problem's value",
    ),
    "probes": Reading(
        " accuracy",
        "accuracy of the probe",
        "the share of test problems in which a linear probe names the value of that step, after `The answer is`",
        "always naming the commonest value; what else a probe has to beat stands beside the chosen places",
    ),
}


def lens_figure(findings: Sequence[Finding]) -> list[Figure]:
    """Values read at the answer position by layer: a line a value, and one for its null, for each lens and student."""
    rows = [
        f
        for f in findings
        if f.lens in READINGS
        and f.metric.endswith(READINGS[f.lens].metric)
        and f.position == "answer"
        and f.metric.startswith("value ")
    ]
    return [_reading(lens, name, rows) for lens, name in dict.fromkeys((f.lens, f.subject) for f in rows)]


def _reading(lens: str, name: str, rows: Sequence[Finding]) -> Figure:
    told = READINGS[lens]
    plot = go.Figure()
    mine = [f for f in rows if (f.lens, f.subject) == (lens, name)]
    for index, metric in enumerate(dict.fromkeys(f.metric for f in mine)):
        line = sorted((f for f in mine if f.metric == metric), key=lambda f: f.layer or 0)
        label = metric.removesuffix(told.metric)
        x = [f.layer for f in line]
        plot.add_scatter(x=x, y=[f.value for f in line], name=label, error_y=interval(line), **curve(index))
        null = {**curve(index, marker=False), "opacity": 0.6}
        plot.add_scatter(x=x, y=[max(n.value for n in f.nulls) for f in line], name=f"{label}: null", **null)
    plot.update_xaxes(title="layer (0 is the embedding)", dtick=1)
    plot.update_yaxes(title=told.axis, range=[0, 1.04], tickformat=".0%")
    spoken = lens.replace("_", " ")
    return finished(
        f"{lens}-{name}",
        f"{spoken.capitalize()} at the answer position: {name}",
        f"Lines with markers: {told.caption}. The last value is the answer. Lines without markers are the null: "
        f"{told.null}. Where the two meet, nothing is read.",
        plot,
        ("value", "layer", "share", "low", "high", "nulls", "n"),
        [(f.metric, f.layer, f.value, f.low, f.high, nulls_of(f), f.n) for f in mine],
    )


def layer_figure(findings: Sequence[Finding]) -> list[Figure]:
    """Relative weight difference by layer for every pair of models; numbers stand on the bars."""
    rows = [f for f in findings if f.lens == "weights" and f.module == "all" and f.metric == "relative difference"]
    if not rows:
        return []
    plot = go.Figure()
    for index, pair in enumerate(dict.fromkeys((f.reference, f.subject) for f in rows)):
        bars = [f for f in rows if (f.reference, f.subject) == pair]
        plot.add_bar(
            x=["outside" if f.layer is None else f"layer {f.layer}" for f in bars],
            y=[f.value for f in bars],
            name=f"{pair[0]} → {pair[1]}",
            error_y=interval(bars),
            text=[f"{f.value:.2f}" for f in bars],
            marker={
                "color": COLOURS[index % 8],
                "pattern": {"shape": ("", "/", "x", "-", "|", "+", ".", "\\")[index % 8]},
            },
        )
    plot.update_yaxes(title="‖W′ − W‖ / ‖W‖")
    return [
        finished(
            "weights",
            "Weight differences by layer",
            "How far all parameters of a layer moved, relative to their norm; `outside` are the embeddings and the "
            "final norm. Null: a model with itself gives 0; where the recipe has a re-seeded twin, the table holds "
            "what re-seeding alone changes.",
            plot,
            ("pair", "layer", "module", "difference", "low", "high", "nulls"),
            [
                (f"{f.reference} → {f.subject}", f.layer, f.module, f.value, f.low, f.high, nulls_of(f))
                for f in findings
                if f.lens == "weights" and f.metric == "relative difference"
            ],
        )
    ]
