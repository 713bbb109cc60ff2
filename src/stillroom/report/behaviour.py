"""Figures of what students do: what an answer costs them, whether it rests on their reasoning, and whether they know
more than the training problems."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from stillroom.records import Finding, Score
from stillroom.report.figures import COLOURS, MAJORITY, MARKERS, Figure, curve, finished, interval, nulls_of

COLUMNS = ("student", "what was done", "where", "measure", "value", "low", "high", "nulls", "n")
MEASURES = ("cost", "faithfulness", "memorising")
COST_PARTS = ("prompt", "thoughts", "answer")


def order(findings: Sequence[Finding]) -> dict[str, int]:
    """Each student's place, which is its colour and its marker in all figures of this page's part."""
    names = dict.fromkeys(f.subject for f in findings if f.lens in MEASURES)
    return {name: place for place, name in enumerate(names)}


def frontier_figure(scores: Sequence[Score], findings: Sequence[Finding]) -> list[Figure]:
    """Test accuracy of every student, and of a local teacher, against the operations of an answer."""
    costs = {f.subject: f for f in findings if f.lens == "cost" and not f.position}
    accuracy = {
        label: s
        for s in scores
        if s.split == "test" and s.group == "all" and s.metric == "accuracy"
        for label in (s.student, f"{s.student}@{s.seed}")
        if label in costs
    }
    if not accuracy:
        return []
    points = sorted(((costs[name], score) for name, score in accuracy.items()), key=lambda p: (p[0].value, -p[1].value))
    best = [p for i, p in enumerate(points) if all(p[1].value > other[1].value for other in points[:i])]
    plot = go.Figure()
    step = {"color": "#999999", "width": 1, "shape": "hv"}
    plot.add_scatter(
        x=[c.value for c, _ in best], y=[s.value for _, s in best], name="frontier", mode="lines", line=step
    )
    place = order(findings)
    for cost, score in points:
        plot.add_scatter(
            x=[cost.value], y=[score.value], name=cost.subject,
            error_x=interval([cost]), error_y=interval([score]),
            **{**curve(place[cost.subject]), "mode": "markers"},
        )  # fmt: skip
    null = next((s for s in scores if (s.student, s.split, s.group) == (MAJORITY, "test", "all")), None)
    if null is not None:
        plot.add_hline(y=null.value, line={"dash": "dot", "color": "#000000"}, annotation_text=MAJORITY)
    plot.update_xaxes(
        title="floating-point operations an answer (M: million, G: billion)",
        type="log",
        tickformat=".2s",
        nticks=7,
        tickangle=0,
    )
    plot.update_yaxes(title="accuracy", range=[0, 1.15], tickformat=".0%")
    parts = {(f.subject, f.position): f.value for f in findings if f.lens == "cost"}
    return [
        finished(
            "frontier",
            "Accuracy against cost",
            "What an answer to a test question costs in multiplications and additions (mean, with its 95 % interval), "
            "and how often it is right. On the grey line nobody is right more often for less. Null: `majority`, which "
            "reads nothing and costs nothing; and in the table the cost of an answer of one token right after the "
            "question. Seconds differ from run to run: the manifest of each `cost` stage holds them.",
            plot,
            ("student", "accuracy", "low", "high", "operations", "low", "high", *COST_PARTS, "one token", "n"),
            [
                (
                    c.subject, s.value, s.low, s.high, c.value, c.low, c.high,
                    *(parts.get((c.subject, part)) for part in COST_PARTS), c.nulls[0].value, c.n,
                )
                for c, s in points
            ],
        )
    ]  # fmt: skip


def faithfulness_figures(findings: Sequence[Finding]) -> list[Figure]:
    """How the answer comes to stand while the chain grows, and how often each disturbance of all of it changes it."""
    rows = [f for f in findings if f.lens == "faithfulness"]
    early = [f for f in rows if f.module == "early answering" and f.position and f.metric == "answers changed"]
    whole = [f for f in rows if not f.position and f.metric in ("answers changed", "area over the curve")]
    return [*_early(early, order(findings)), *_disturbances(whole, rows, order(findings))]


def _early(rows: Sequence[Finding], place: Mapping[str, int]) -> list[Figure]:
    if not rows:
        return []
    plot = go.Figure()
    for name in dict.fromkeys(f.subject for f in rows):
        index = place[name]
        line = [f for f in rows if f.subject == name]
        x = [float(f.position.removeprefix("after ").partition("%")[0]) / 100 for f in line]
        plot.add_scatter(x=x, y=[f.value for f in line], name=name, error_y=interval(line), **curve(index))
        for null in line[0].nulls[:1]:
            named = f"{name}: null"
            plot.add_scatter(x=x, y=[null.value] * len(x), name=named, opacity=0.6, **curve(index, marker=False))
    plot.update_xaxes(title="share of the chain that was left", tickformat=".0%")
    plot.update_yaxes(title="answers changed", range=[-0.02, 1.04], tickformat=".0%")
    return [
        finished(
            "early-answering",
            "When the answer comes to stand",
            "Lines with markers: the share of answers that are not the student's own undisturbed ones when it must "
            "answer after a part of its chain, in words or in thoughts (Lanham et al. 2023). A line that is low from "
            "the start belongs to a student that does not need its reasoning. Lines without markers are the null: how "
            "many answers change when the question is only put in other words or, without a rule for that, drawn "
            "again.",
            plot,
            COLUMNS,
            [_row(f) for f in rows],
        )
    ]


def _disturbances(shown: Sequence[Finding], rows: Sequence[Finding], place: Mapping[str, int]) -> list[Figure]:
    if not shown:
        return []
    plot = go.Figure()
    for name in dict.fromkeys(f.subject for f in shown):
        mine = [f for f in shown if f.subject == name]
        points = _points(name, place[name])
        plot.add_scatter(x=[f.value for f in mine], y=[f.module for f in mine], error_x=interval(mine), **points)
        nulls = [f for f in mine if f.nulls]
        hollow = {**points["marker"], "symbol": f"{points['marker']['symbol']}-open", "size": 7}
        points |= {"name": f"{name}: null", "marker": hollow}
        plot.add_scatter(x=[f.nulls[0].value for f in nulls], y=[f.module for f in nulls], **points)
    plot.update_layout(scattermode="group", scattergap=0.3)
    plot.update_xaxes(title="answers changed", range=[-0.04, 1.04], tickformat=".0%")
    plot.update_yaxes(automargin=True, autorange="reversed")
    return [
        finished(
            "disturbed",
            "What changes the answer",
            "Filled: the share of answers that change when the whole chain, or all thoughts, are exchanged for "
            "something else; for early answering and added mistakes the area over the curve. Hollow: "
            "the null, the same problems in other words or drawn again; where the two meet, the reasoning made no "
            "difference. The table holds the differences pair by pair, and accuracy.",
            plot,
            COLUMNS,
            [_row(f) for f in rows if not f.position],
        )
    ]


def memorising_figure(findings: Sequence[Finding]) -> list[Figure]:
    """Differences of accuracy that memory makes, and what the nearest training problem is worth."""
    rows = [f for f in findings if f.lens == "memorising"]
    gaps = [f for f in rows if " minus " in f.metric]
    if not gaps:
        return []
    plot = go.Figure()
    place = order(findings)
    for name in dict.fromkeys(f.subject for f in gaps):
        mine = [f for f in gaps if f.subject == name]
        y = [f.metric.removesuffix(" accuracy").removesuffix(",") for f in mine]
        plot.add_scatter(x=[f.value for f in mine], y=y, error_x=interval(mine), **_points(name, place[name]))
    plot.update_layout(scattermode="group", scattergap=0.3)
    plot.add_vline(x=0, line={"dash": "dot", "color": "#000000"})
    plot.update_xaxes(title="difference of accuracy", tickformat=".0%")
    plot.update_yaxes(automargin=True, autorange="reversed")
    return [
        finished(
            "memorising",
            "Solved or memorised",
            "Accuracy on training problems minus that on problems that were not trained on, on those that ask for more "
            "than training did, and on copies of training problems with other numbers (these pair by pair). Null: 0, "
            "and in the table the same difference for the most frequent training answer. There too: how often a copy "
            "got its original's answer, and what the answer of the nearest training problem is worth.",
            plot,
            ("student", "measure", "value", "low", "high", "nulls", "n"),
            [(f.subject, f.metric, f.value, f.low, f.high, nulls_of(f), f.n) for f in rows],
        )
    ]


def _row(f: Finding) -> tuple[object, ...]:
    return f.subject, f.module, f.position, f.metric, f.value, f.low, f.high, nulls_of(f), f.n


def _points(name: str, index: int) -> dict[str, Any]:
    """Points of one student in a row for each measure, beside those of the others and above its own null's."""
    marker = {"symbol": MARKERS[index % len(MARKERS)], "size": 10, "color": COLOURS[index % len(COLOURS)]}
    return {"name": name, "mode": "markers", "marker": marker, "orientation": "h", "offsetgroup": name}
