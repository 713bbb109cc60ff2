"""The ledger of truth in the report: its table, and how well each lens ranks the value that is known to be true."""

from collections.abc import Sequence

import plotly.graph_objects as go

from stillroom.records import Finding
from stillroom.report.figures import COLOURS, MARKERS, Figure, finished, interval, nulls_of
from stillroom.report.ledger import COLUMNS, ledger

CHOSEN = ", chosen on validation"
CAPTION = (
    "The values of the steps are known, so lenses can be held against them. Layer and place were chosen on validation "
    "problems, shares are of test problems. AUROC is the share of other candidate values that the true one beats, "
    "top-1 that it beats all; values that stand in the question do not count. Null: the strongest one stands beside "
    "each score. The last columns tell what activation patching does at that very place: another problem's state there "
    "(the answer should become that problem's), and its null, a state of the same value (it should stay). A lens can "
    "read what a student does not use."
)


def ledger_figures(findings: Sequence[Finding], made_of: Sequence[str]) -> list[Figure]:
    """The table of all claims, and a picture of how high each lens ranks the true value."""
    told = ledger(findings)
    claims = [Figure("ledger", "Which lens finds what a student computes", CAPTION, "", COLUMNS, told)] if told else []
    return [figure._replace(made_of=tuple(made_of)) for figure in (*claims, *_ranked(findings))]


def _ranked(findings: Sequence[Finding]) -> list[Figure]:
    rows = [f for f in findings if f.metric.endswith(CHOSEN) and (" AUROC" in f.metric or " top-1" in f.metric)]
    ranked = [f for f in rows if " AUROC" in f.metric]
    if not ranked:
        return []
    plot = go.Figure()
    for index, lens in enumerate(dict.fromkeys(f.lens for f in ranked)):
        mine = [f for f in ranked if f.lens == lens]
        y = [f"{f.subject}, {f.metric.partition(' AUROC')[0]}" for f in mine]
        look = {"size": 10, "color": COLOURS[index % 8]}
        group = {"mode": "markers", "offsetgroup": lens, "orientation": "h"}
        symbol = MARKERS[index % len(MARKERS)]
        plot.add_scatter(
            x=[f.value for f in mine],
            y=y,
            name=lens,
            error_x=interval(mine),
            marker={**look, "symbol": symbol},
            **group,
        )
        best = [max((n.value for n in f.nulls), default=None) for f in mine]
        plot.add_scatter(
            x=best, y=y, name=f"{lens}: strongest null", marker={**look, "symbol": f"{symbol}-open", "size": 8}, **group
        )
    plot.add_vline(x=0.5, line={"dash": "dot", "color": "#000000"})
    plot.update_layout(scattermode="group", scattergap=0.3)
    plot.update_xaxes(title="AUROC of the true value among all candidates", range=[-0.02, 1.02])
    plot.update_yaxes(automargin=True, autorange="reversed", tickfont={"size": 11})
    height = 170 + 16 * len(ranked)
    figure = finished(
        "ledger-auroc",
        "How high lenses rank the true value",
        "The share of the other candidate values that the true one beats, averaged over test problems; layer and "
        "place are "
        "chosen on validation problems. The table has top-1 too: the share in which it beats all. Null: open points, "
        "the "
        "strongest of the value's frequency, another problem's reading and each lens's own; 0.5 (dotted) is a coin.",
        plot,
        ("lens", "model", "measure", "layer", "module", "position", "value", "low", "high", "n", "nulls"),
        [
            (f.lens, f.subject, f.metric, f.layer, f.module, f.position, f.value, f.low, f.high, f.n, nulls_of(f))
            for f in rows
        ],
        height=height,
    )
    return [figure]
