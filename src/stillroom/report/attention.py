"""Attention drawn: where the head that moved most looks on one typical problem, beside the base and even attention."""

from collections.abc import Sequence

import plotly.graph_objects as go

from stillroom.records import Finding
from stillroom.report.figures import Figure, curve, finished


def pattern_figures(findings: Sequence[Finding]) -> list[Figure]:
    """A figure for each student: weight by token, the reference's and even attention without markers."""
    rows = [f for f in findings if f.lens == "attention" and f.metric == "attention to the token"]
    figures = []
    for name in dict.fromkeys(f.subject for f in rows):
        mine = [f for f in rows if f.subject == name]
        head = f"{mine[0].module} of layer {mine[0].layer}"
        plot = go.Figure()
        plot.add_scatter(x=[f.position for f in mine], y=[f.value for f in mine], name=name, **curve(0))
        for index, who in enumerate(dict.fromkeys(null.name for f in mine for null in f.nulls), 1):
            known = [(f.position, null.value) for f in mine for null in f.nulls if null.name == who]
            line = {**curve(index, marker=False), "opacity": 0.6}
            plot.add_scatter(x=[at for at, _ in known], y=[value for _, value in known], name=who, **line)
        plot.update_xaxes(title="token, with its number", type="category", tickangle=-60)
        plot.update_yaxes(title="attention", rangemode="tozero")
        figures.append(
            finished(
                f"attention-{name}",
                f"Where {name} looks before it answers",
                f"The attention of {head}, which moved most from the base on validation problems, at the token before "
                "the answer. One test problem: of all, the one on which this head moved as far as on half of them. "
                "Null: even attention; and the base at the same tokens.",
                plot,
                ("token", "attention", *(null.name for null in mine[0].nulls)),
                [(f.position, f.value, *_beside(f, mine[0])) for f in mine],
            )
        )
    return figures


def _beside(finding: Finding, first: Finding) -> list[float | None]:
    told = {null.name: null.value for null in finding.nulls}
    return [told.get(null.name) for null in first.nulls]
