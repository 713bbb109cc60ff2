"""Figures of crosscoders: what was found stands beside its nulls, verdicts follow intervals, sizes keep their cells."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillroom.files import write_lines
from stillroom.records import Finding, Null
from stillroom.report.causes import cause_figures, verdicts
from stillroom.report.crosscoders import BINS, crosscoder_figures
from stillroom.report.sizes import size_figures

NULL = "matched control"


def finding(metric: str, value: float, half: float = 0.1, position: str = "", **changes: object) -> Finding:
    nulls = tuple(
        Null(name=name, value=value / 2, low=value / 2 - half, high=value / 2 + half)
        for name in changes.pop("nulls", (NULL, "random latents"))
    )
    plain = {"lens": "crosscoder", "subject": "distilled", "reference": "base", "layer": 1, "module": "residual stream"}
    return Finding(
        **{**plain, **changes},
        position=position,
        metric=metric,
        value=value,
        low=value - half,
        high=value + half,
        n=60,
        nulls=nulls,
    )


def found(category: str, count: int, *beyond: Finding) -> list[Finding]:
    return [finding("latents found", count, 0, category, nulls=("itself",)), *beyond]


def beyond(value: float, half: float) -> Finding:
    return finding(
        "accuracy lost to + beyond its matched control", value, half, "problems with +", nulls=("random latents",)
    )


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (
            found("+", 3, beyond(0.2, 0.1)),
            "+: 3 latents (itself 1.5), +20.0 points [+10.0, +30.0] beyond the control (n = 60, random latents +10.0): "
            "needed.",
        ),
        (
            found("+", 3, beyond(0.1, 0.1)),
            "+: 3 latents (itself 1.5), +10.0 points [+0.0, +20.0] beyond the control (n = 60, random latents +5.0): "
            "not established.",
        ),
        (found("+", 3), "For + there are too few latents or problems to compare with a control."),
        (found("+", 0), "No latent was found for +."),
    ],
)
def test_latents_are_needed_only_where_the_interval_leaves_0_out(told: list[Finding], sentence: str) -> None:
    assert verdicts(told) == [sentence]
    (figure,) = cause_figures("base → distilled", told)
    assert figure.caption.endswith(sentence)
    assert not figure.plot  # no accuracy was told


def test_what_is_taken_out_and_pushed_is_drawn_beside_every_null() -> None:
    told = found("+", 3, beyond(0.2, 0.1))
    told += [finding("accuracy lost without the 3 latents of +", 0.4, position="problems with +")]
    told += [finding(f"change of logit, top {share} %", -1.0, position="+") for share in ("0.5", "20")]
    for what in ("tokens", "accuracy"):
        plain = f"{what} with latent 7 at strength +1"
        told += [finding(plain, 3.0, position="+", nulls=("not steered", "random directions"))]
        told += [finding(f"{plain}, beyond random directions", 1.0, position="+", nulls=("not steered",))]
    figures = list(cause_figures("base → distilled", told))
    kinds = ["needed", "logit", "steered-tokens", "steered-accuracy"]
    assert [figure.anchor for figure in figures] == [f"crosscoder-{kind}-base-to-distilled" for kind in kinds]
    lines = [{trace.get("name") for trace in json.loads(figure.plot)["data"]} for figure in figures]
    assert lines[0] == {"measured", "null: matched control", "null: random latents"}
    assert lines[1] == {"+", "+: matched control", "+: random latents"}
    assert lines[2] == lines[3] == {"measured", "null: not steered", "null: random directions"}
    assert "1 of 1 intervals" in figures[2].caption
    assert sum(len(figure.rows) for figure in figures) == len(told)


def test_the_histogram_holds_every_live_latent_and_curves_their_nulls(tmp_path: Path) -> None:
    rows = [("pair", 1.0, 0.5), ("pair", 0.5, 0.5), ("pair", 0.2, 0.0), ("itself", 0.5, 0.1)]
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(("of", "nrn", "frequency"))})
    pq.write_table(table, tmp_path / "latents.parquet")
    told = [finding("mean NRN", 0.5, nulls=("itself",)), finding("dead latents", 0.25, nulls=("itself",))]
    told += [finding("parallelogram loss of successor in base, all dimensions", 0.7, position="in context")]
    write_lines(tmp_path / "findings.jsonl", told)
    curves = {"successor": {"base": [0.1, 0.2], "base, shuffled pairs": [0.8, 0.9]}}
    (tmp_path / "parallelogram.json").write_text(json.dumps(curves))
    histogram, curve = crosscoder_figures({"base → distilled": tmp_path})
    pair, itself = json.loads(histogram.plot)["data"]
    assert [sum(trace["y"]) for trace in (pair, itself)] == [1, 1]
    assert pair["y"][BINS - 1] == pair["y"][BINS // 2] == 0.5  # 1 lies in the last bin, ½ in the middle of one
    assert histogram.caption.endswith("Here: dead latents 0.250, itself 0.125; mean NRN 0.500, itself 0.250.")
    assert [trace["name"] for trace in json.loads(curve.plot)["data"]] == ["base", "base, shuffled pairs"]
    assert len(curve.rows) == 1


def test_a_dictionary_without_a_live_latent_is_told_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"of": ["pair"], "nrn": [0.5], "frequency": [0.0]}), tmp_path / "latents.parquet")
    rows = [finding("dead latents", 1.0, 0, nulls=("itself",)), finding("dense latents", 0.0, 0, nulls=())]
    write_lines(tmp_path / "findings.jsonl", rows)
    (tmp_path / "parallelogram.json").write_text("{}")
    (histogram,) = crosscoder_figures({"base → distilled": tmp_path})
    assert histogram.caption.endswith("Here: dead latents 1.000, itself 0.500.")
    assert [row[-1] for row in histogram.rows] == ["itself: 0.5", "none"]


def test_sizes_are_drawn_by_cell_beside_their_nulls() -> None:
    told = []
    for cell, value in (("width=64", 0.5), ("width=96", 0.6)):
        names = {"subject": f"distilled [{cell}]", "reference": f"base [{cell}]"}
        told += [
            finding("mean NRN", value, nulls=("itself",), **names),
            finding("dead latents", value, nulls=("itself",), **names),
            finding(
                "parallelogram loss of operand swap in base, all dimensions", value, nulls=("shuffled pairs",), **names
            ),
            finding("parallelogram loss of operand swap in base, 20 components", value, nulls=(), **names),
            finding("accuracy gained", value, nulls=(), **names),
        ]
    figures = size_figures(told)
    anchors = ["crosscoder-sizes-nrn", "crosscoder-sizes-gained", "crosscoder-sizes-operand-swap"]
    assert [figure.anchor for figure in figures] == anchors
    assert [len(figure.rows) for figure in figures] == [4, 2, 4]
    nrn, gained, swap = (json.loads(figure.plot)["data"] for figure in figures)
    assert [(trace["name"], trace["x"], trace["y"]) for trace in nrn] == [
        ("base → distilled", ["width=64", "width=96"], [0.5, 0.6]),
        ("base → distilled: itself", ["width=64", "width=96"], [0.25, 0.3]),
    ]
    low, high = json.loads(figures[0].plot)["layout"]["yaxis"]["range"]
    assert [low, high] == [
        pytest.approx(0.1225),
        pytest.approx(0.7275),
    ]  # from the lowest null to the highest size, and a little room
    assert [trace["name"] for trace in swap] == ["base", "base: shuffled pairs"]
    assert len(gained) == 1
    assert not size_figures([])
