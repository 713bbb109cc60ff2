"""Maps of a lens over the network: one measure by place and layer, coloured where it lies outside its nulls."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from stillroom.records import Finding
from stillroom.report.evidence import SIGNIFICANT, rivals
from stillroom.report.figures import Figure, finished, nulls_of

ROWS = 48
"""Rows of a map at most, shared out over the models; the lens's table has all."""


SCALE = (
    (0, "rgba(86,180,233,0.6)"), (0.4999, "rgba(86,180,233,0.25)"), (0.5, "rgba(128,128,128,0.1)"),
    (0.5001, "rgba(230,159,0,0.25)"), (1, "rgba(230,159,0,0.6)"),
)  # fmt: skip
"""A cell that lies outside its nulls, however little, is seen to, also on dark paper."""


class Map(NamedTuple):
    """One measure over the network: which findings, and what tells their rows and columns apart."""

    metric: str
    row: str
    column: str = "layer"
    module: str = ""
    position: str = ""
    missing: str = "outside"
    """What a column is called that belongs to no layer."""

    def holds(self, f: Finding) -> bool:
        fits = self.module in ("", f.module) and self.position in ("", f.position)
        return f.metric == self.metric and fits and not f.invalid

    def column_of(self, f: Finding) -> str:
        if self.column == "head":
            return f"layer {f.layer}, {f.module}"
        told = getattr(f, self.column)
        return self.missing if told is None else f"layer {told}" if self.column == "layer" else str(told)


MAPS: dict[str, tuple[Map, ...]] = {
    "representations": (Map("CKA", row="position"),),
    "kl": (Map("divergence (nats)", row="module", column="position"),),
    "attention": (Map("Jensen–Shannon divergence in bits", row="position", column="head"),),
    "patching": (Map("answer moved", row="position", module="residual"),),
    "tracing": (Map("answer's probability restored", row="position"),),
    "cross_model": (Map("right answers with the subject's state", row="position"),),
    "ablation": (Map("accuracy after mean-ablation", row="module", position="all"),),
    "grafting": (
        Map("accuracy of the base with the difference put in", row="module", position="all"),
        Map("accuracy with the difference taken out", row="module", position="all"),
    ),
}


def who(f: Finding) -> str:
    return f"{f.reference} → {f.subject}" if f.reference else f.subject


def beyond(f: Finding) -> float:
    """How far a finding lies outside all its nulls but the self-diff, with its sign; 0 where there is no other, where
    its interval meets one of theirs, or where the p that is corrected over its grid lets nothing stand."""
    nulls = rivals(f)
    if f.adjusted is not None and f.adjusted >= SIGNIFICANT:
        return 0.0
    if nulls and f.low > max(n.high for n in nulls):
        return f.value - max(n.value for n in nulls)
    if nulls and f.high < min(n.low for n in nulls):
        return f.value - min(n.value for n in nulls)
    return 0.0


def lens_map(name: str, wanted: Map, findings: Sequence[Finding]) -> Iterator[Figure]:
    """One measure by place and layer: the number in each cell, its colour how far it lies outside its nulls."""
    rows = [f for f in findings if wanted.holds(f)]
    if not rows:
        return
    columns = list(dict.fromkeys(wanted.column_of(f) for f in rows))
    lines: dict[tuple[str, str], dict[str, Finding]] = {}
    for f in rows:
        lines.setdefault((who(f), getattr(f, wanted.row)), {})[wanted.column_of(f)] = f
    shown = _most(lines)
    cells = [[line.get(column) for column in columns] for line in shown.values()]
    single = len({place for _, place in shown}) == 1
    plot = go.Figure()
    plot.add_heatmap(
        x=columns,
        y=[model if single else f"{model}, {place}" for model, place in shown],
        z=[[beyond(f) if f else None for f in line] for line in cells],
        text=[[_short(f.value) if f else "" for f in line] for line in cells],
        texttemplate="%{text}",
        textfont={"color": "#000000"},
        colorscale=SCALE,
        zmid=0,
        showscale=False,
        xgap=1,
        ygap=1,
        hovertemplate="%{y}, %{x}: %{text}, %{z:.3f} outside its nulls<extra></extra>",
    )
    plot.update_xaxes(type="category", showgrid=False)
    plot.update_yaxes(automargin=True, autorange="reversed", type="category", tickfont={"size": 11}, showgrid=False)
    left = (
        f" {len(shown)} of {len(lines)} rows, those with the largest numbers of each model."
        if len(shown) < len(lines)
        else ""
    )
    nulls = "; ".join(dict.fromkeys(n.name for f in rows for n in f.nulls)) or "none was measured"
    yield finished(
        f"lens-{name.replace('_', '-')}-{wanted.metric}",
        f"{name}: {wanted.metric}, place by place",
        "The number in each cell, where there is room for it, is the measure. Orange cells lie above all their nulls, "
        "blue ones below, by interval and, where the lens tests its grid, by the corrected p; in cells without colour "
        f"nothing is established, and without anything to find hardly a cell has a colour. Nulls: {nulls}.{left}",
        plot,
        ("model", wanted.row, wanted.column, "value", "low", "high", "nulls", "outside its nulls by", "n"),
        [
            (
                model, place, column, f.value, f.low, f.high, nulls_of(f), beyond(f), f.n,
            )
            for (model, place), line in shown.items()
            for column, f in line.items()
        ],
        height=90 + 24 * len(shown),
    )  # fmt: skip


def _short(value: float) -> str:
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.005 else f"{value:.0e}"


def _most(lines: dict[tuple[str, str], dict[str, Finding]]) -> dict[tuple[str, str], dict[str, Finding]]:
    """All rows, or as many as there is room for: of each model those with the largest numbers, in their order."""
    if len(lines) <= ROWS:
        return lines
    models: dict[str, list[tuple[str, str]]] = {}
    for key in lines:
        models.setdefault(key[0], []).append(key)
    room = max(1, ROWS // len(models))
    largest = {key: max(f.value for f in line.values()) for key, line in lines.items()}
    kept = {key for keys in models.values() for key in sorted(keys, key=lambda key: -largest[key])[:room]}
    return {key: line for key, line in lines.items() if key in kept}
