"""Figures of the lenses: what was chosen beside its nulls, where it lies in the network, and every finding in a table.

A lens that no table of this file names is shown too: its chosen findings, or else its first ones.
"""

from collections.abc import Iterator, Sequence

from stillroom.records import Finding
from stillroom.report.attention import pattern_figures
from stillroom.report.figures import Figure, dotted, finished, nulls_of
from stillroom.report.maps import MAPS, lens_map, who
from stillroom.report.pages import Part
from stillroom.report.readings import layer_figure, lens_figure

CHOSEN = ", chosen on validation"
POINTS = 40
"""Findings that one picture of dots shows at most; its table has all."""
COLUMNS = (
    "model", "reference", "measure", "layer", "module", "position", "value", "low", "high", "n", "nulls",
    "adjusted p", "no measurement because",
)  # fmt: skip


TOLD = {
    "weights": "How far training moved the weights, layer by layer and matrix by matrix.",
    "logit_lens": "What the final layer's vocabulary reads in the residual stream of every layer.",
    "tuned_lens": "The logit lens with an affine correction for every layer.",
    "probes": "What a linear classifier, fitted on training problems, recovers of intermediate values.",
    "representations": "How alike two models represent the same text.",
    "kl": "How far the models' predictions of the same text lie apart.",
    "attention": "Where each head looks, and whose heads moved.",
    "patching": "Where the value that is computed lies: a state of another problem is put in its place.",
    "tracing": "Which state brings the answer back when the question's numbers are drowned in noise.",
    "cross_model": "What of one student makes another one's answer right.",
    "ablation": "What is lost without a layer, its attention, its MLP or a head.",
    "grafting": "Which part's weight difference suffices, and which is needed.",
    "over_training": "When another lens first finds its finding, and where.",
}


def lens_parts(named: Sequence[tuple[str, Sequence[Finding]]]) -> Iterator[Part]:
    """A section for each lens; `named` pairs the report's parents with what they found, seeds of a lens apart."""
    by: dict[str, list[tuple[str, Sequence[Finding]]]] = {}
    for role, findings in named:
        by.setdefault(role.partition("@")[0], []).append((role, findings))
    for role, seeds in by.items():
        name = role.removeprefix("lens ")
        rows = [f for _, findings in seeds for f in findings]
        invalid = [f for f in rows if f.invalid]
        notes = [] if rows else ["It found nothing to measure on these students and problems."]
        if invalid:
            notes = [f"{len(invalid)} of {len(rows)} findings are no measurement; the table tells why."]
        figures = [f._replace(made_of=tuple(seed for seed, _ in seeds)) for f in _figures(name, rows)] if rows else []
        yield Part(f"lens-{name.replace('_', '-')}", f"Lens: {name}", TOLD.get(name, ""), figures, notes)


def _figures(name: str, rows: Sequence[Finding]) -> list[Figure]:
    valid = [f for f in rows if not f.invalid]
    figures = [*lens_figure(valid), *layer_figure(valid), *pattern_figures(valid)]
    chosen = [f for f in valid if f.metric.endswith(CHOSEN)]
    families = dict.fromkeys(_family(f) for f in chosen)
    kept = [f for f in chosen if _family(f) in list(families)[:1]]
    maps = [one for wanted in MAPS.get(name, ()) for one in lens_map(name, wanted, valid)]
    if kept or not (figures or maps):
        figures.append(dots(name, kept or valid))
    told = [
        (
            f.subject, f.reference, f.metric, f.layer, f.module, f.position, f.value, f.low, f.high, f.n, nulls_of(f),
            f.adjusted, f.invalid,
        )
        for f in rows
    ]  # fmt: skip
    caption = (
        "Every finding with its 95 % interval and its nulls: what the same measure reads where nothing is to be found."
    )
    every = Figure(f"lens-{name.replace('_', '-')}-findings", f"All findings of {name}", caption, "", COLUMNS, told)
    return [*figures, *maps, every]


def _family(f: Finding) -> str:
    """The measure without the number of the value that it is of: those share a unit, and so an axis."""
    return " ".join(word for word in f.metric.split() if not word.isdigit())


def dots(name: str, rows: Sequence[Finding]) -> Figure:
    """Each finding as a point with its interval, and each of its nulls beside it."""
    shown = rows[:POINTS]
    labels = [_label(f, len({_family(r) for r in shown}) > 1) for f in shown]
    measure = _family(shown[0]).removesuffix(CHOSEN)
    more = f" The first {POINTS} of {len(rows)}." if len(rows) > POINTS else ""
    where = "Layer and place were chosen on validation problems, the measure is of test problems. "
    return finished(
        f"lens-{name.replace('_', '-')}-chosen",
        f"{name}: {measure}, where it was looked for",
        (where if shown[0].metric.endswith(CHOSEN) else "")
        + "Filled: the measure with its 95 % interval. Open: the same measure under each null, where there is "
        "nothing to "
        "find. Where the filled point's interval reaches an open one, nothing is established." + more,
        dotted(labels, shown, measure),
        ("finding", "measure", "value", "low", "high", "nulls", "n"),
        [
            (label, f.metric, f.value, f.low, f.high, nulls_of(f), f.n)
            for label, f in zip(labels, shown, strict=True)
        ],
        height=150 + 30 * len(shown),
    )  # fmt: skip


def _label(f: Finding, mixed: bool) -> str:
    numbers = [word for word in f.metric.split() if word.isdigit()]
    value = f"value {numbers[0]}" if f.metric.startswith("value ") and numbers else ""
    layer = "" if f.layer is None else f"layer {f.layer}"
    measure = f.metric.removesuffix(CHOSEN) if mixed else ""
    module = "" if f.module in ("residual stream", "residual", "output", "all") else f.module
    return ", ".join(part for part in (who(f), value, measure, layer, module, f.position[:24]) if part)
