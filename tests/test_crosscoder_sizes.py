"""Sizes side by side: the chosen findings under their cell's name, and what accuracy was gained, paired by problem."""

from pathlib import Path

import pytest

from stillroom import pipeline
from stillroom.crosscoder.measuring import Address
from stillroom.crosscoder.sizes import GAINED, Pair, SizesConfig, make_sizes
from stillroom.files import read_lines, write_lines
from stillroom.recipes import load_recipe
from stillroom.records import Finding, Null, Verdict
from stillroom.stats import Interval
from toys import workplace


def crosscoder(folder: Path, value: float) -> Path:
    """The findings of one pair, of which a size shows some."""
    address, told = Address("distilled", "base", 1), Interval(value, value - 0.1, value + 0.1)
    null = Null(name="itself", value=0.5, low=0.5, high=0.5)
    shape = "parallelogram loss of successor in distilled, {}"
    rows = [
        address.finding("mean NRN", told, 9, [null]),
        address.finding("active latents a token", told, 9),
        address.finding(shape.format("20 components"), told, 9, position="in context"),
        address.finding(shape.format("2 components"), told, 9, position="in context"),
        address.finding(shape.format("all dimensions"), told, 9, position="position 0"),
    ]
    folder.mkdir()
    write_lines(folder / "findings.jsonl", rows)
    return folder


def scores(folder: Path, **right: str) -> Path:
    for name, told in right.items():
        (folder / name).mkdir(parents=True)
        verdicts = [Verdict(correct=mark == "+", extracted=None, rule="", parsed=True) for mark in told]
        write_lines(folder / name / "test.jsonl", verdicts)
    return folder


def test_every_size_keeps_its_nulls_and_stands_beside_what_distillation_gained(tmp_path: Path) -> None:
    parents = {}
    pairs = []
    for cell, value, gain in (("width=64", 0.52, "+-+-"), ("width=96", 0.55, "++++")):
        key = cell[-2:]
        parents |= {cell: crosscoder(tmp_path / f"c{key}", value)}
        parents |= {f"scores {cell}": scores(tmp_path / f"s{key}", base="+---", distilled=gain)}
        pairs.append(Pair(role=cell, cell=cell, reference="base", subject="distilled"))
    make_sizes(SizesConfig(pairs=tuple(pairs)), workplace(tmp_path / "out", parents=parents))
    found = read_lines(tmp_path / "out" / "findings.jsonl", Finding)
    metrics = ["mean NRN", "parallelogram loss of successor in distilled, 20 components", GAINED]
    assert [(f.subject, f.metric) for f in found] == [
        (f"distilled [{cell}]", metric) for cell in ("width=64", "width=96") for metric in metrics
    ]
    assert {f.reference for f in found} == {"base [width=64]", "base [width=96]"}
    assert [null.name for null in found[0].nulls] == ["itself"]
    assert {(n.name, n.value) for f in found if f.metric == GAINED for n in f.nulls} == {("equal accuracy", 0.0)}
    assert [f.value for f in found if f.metric == GAINED] == [pytest.approx(0.25), pytest.approx(0.75)]
    assert all(f.n == 4 and f.low <= f.value <= f.high for f in found if f.metric == GAINED)


def test_a_sweep_with_crosscoders_ends_with_their_sizes() -> None:
    stages = pipeline.plan("abacus-crosscoders", load_recipe("abacus-crosscoders", []))
    (made,) = [stage for stage in stages if stage.stage == "sizes"]
    assert len(made.config["pairs"]) == 6
    assert {pair["cell"] for pair in made.config["pairs"]} == {"width=64", "width=96", "width=128"}
    assert {stage.stage for stage in made.parents.values()} == {"crosscoder", "scores"}
    assert len(made.parents) == 9
    (page,) = [stage for stage in stages if stage.name == "overview"]
    assert page.parents["sizes"] is made
    plain = pipeline.plan("abacus-small", load_recipe("abacus-small", ["sweep={fit.updates: [2, 3]}"]))
    assert not [stage for stage in plain if stage.stage == "sizes"]
