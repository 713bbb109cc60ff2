"""Findings carry their address, n, interval and nulls, and come back whole from their table."""

import math
import re
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_file

from stillroom.files import write_lines
from stillroom.lenses import LENSES, SCHEMA, LensConfig, make_findings, signed, write_findings
from stillroom.records import Finding, Null
from stillroom.students import save
from toys import student, sums, workplace

TOO_SMALL = {"probes": r"of the samples|operation \d accuracy", "representations": "explained variance|CKA"}
"""What a toy is too small for: probes of a part of its problems, or of operations, which are all alike; directions; CKA
of one batch."""
FINDINGS = [
    Finding(
        lens="toy", subject="s", reference="", layer=layer, module="m", position="p", metric="x", value=0.1 + 0.2, n=3,
        low=-math.inf, high=1.0, nulls=nulls,
    )
    for layer, nulls in [(None, ()), (3, (Null(name="n", value=1e-17, low=0.0, high=1.0),) * 2)]
]  # fmt: skip


def test_findings_come_back_whole_from_their_table(tmp_path: Path) -> None:
    path = tmp_path / "findings.parquet"
    write_findings(path, FINDINGS)
    assert [Finding.model_validate(row) for row in pq.read_table(path).to_pylist()] == FINDINGS
    assert set(SCHEMA.names) == set(Finding.model_fields)
    first = path.read_bytes()
    write_findings(path, FINDINGS)
    assert path.read_bytes() == first


def test_findings_that_cannot_be_written_whole_leave_no_table(tmp_path: Path, monkeypatch) -> None:
    def half(_: object, where: Path | BinaryIO) -> None:
        with where.open("wb") if isinstance(where, Path) else nullcontext(where) as file:
            file.write(b"PAR1")
        raise OSError("the disk is full")

    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(OSError, match="full"):
        write_findings(tmp_path / "findings.parquet", FINDINGS)
    assert not list(tmp_path.iterdir())


def test_a_lens_that_found_nothing_says_so_and_leaves_an_empty_table(tmp_path: Path, capsys) -> None:
    parents = {"problems": workplace(tmp_path / "problems").out, "base": workplace(tmp_path / "base").out}
    for split in ("train", "validation", "test"):
        write_lines(parents["problems"] / f"{split}.jsonl", [p.model_copy(update={"steps": ()}) for p in sums(4)])
    save(student(), parents["base"])
    config = LensConfig(lens={}, students={"base": "base"})
    at = workplace(tmp_path / "lens", parents=parents)
    make_findings(LENSES["logit_lens"], LENSES["logit_lens"].config(), config, at)
    assert "nothing to measure" in capsys.readouterr().err
    assert pq.read_table(at.out / "findings.parquet").num_rows == 0


@pytest.mark.parametrize("name", LENSES)
def test_every_lens_s_findings_carry_n_interval_and_nulls(name: str, tmp_path: Path) -> None:
    parents = {"problems": workplace(tmp_path / "problems").out}
    for split, problems in (("train", sums(18)), ("validation", sums(6)), ("test", sums(12)[6:])):
        write_lines(parents["problems"] / f"{split}.jsonl", problems)
    people = {"base": 0, "normal": 1, "distilled": 2, "twin": 3}
    for person, seed in people.items():
        parents[person] = workplace(tmp_path / person).out
        one = student(seed=seed)
        save(one, parents[person])
        (parents[person] / "snapshots").mkdir()
        own = {f"model.{name}": weight.detach().contiguous() for name, weight in one.model.named_parameters()}
        save_file(own, parents[person] / "snapshots" / "step-3.safetensors")
    row = LENSES[name]
    settings = row.config(name=name)
    config = LensConfig(
        lens=settings.model_dump(), students={p: p for p in people}, twins={"twin": "normal"}, threads=2
    )
    make_findings(row, settings, config, workplace(tmp_path / "out", parents=parents))
    found = [Finding.model_validate(r) for r in pq.read_table(tmp_path / "out" / "findings.parquet").to_pylist()]
    assert {f.lens for f in found} == {name}
    assert {"normal", "distilled"} <= {f.subject for f in found}
    assert "twin" not in {f.subject for f in found} | {f.reference for f in found}
    assert sum(not f.invalid for f in found) > len(found) / 2
    for f in found:
        assert f.n > 0
        if f.invalid:
            assert re.search(TOO_SMALL[name], f.metric), f
            assert math.isnan(f.value) and math.isnan(f.low) and math.isnan(f.high) and f.nulls == ()
            continue
        assert f.nulls
        assert f.low <= f.value <= f.high
        assert all(null.low <= null.value <= null.high for null in f.nulls)


@pytest.mark.parametrize("name", LENSES)
def test_a_lens_s_name_is_its_config_s(name: str) -> None:
    assert LENSES[name].config.model_fields["name"].default == name


@pytest.mark.parametrize("name", LENSES)
def test_no_lens_falls_back_to_a_version_that_it_had(name: str) -> None:
    """They had one number together up to 6; a smaller one would find the findings of older code in a store."""
    assert LENSES[name].version >= 6


def test_findings_of_several_seeds_are_told_apart() -> None:
    one = Finding(
        lens="l", subject="normal", reference="base", layer=1, module="m", position="", metric="x",
        value=1.0, n=1, low=1.0, high=1.0, nulls=(),
    )  # fmt: skip
    assert (signed(one, "@1").subject, signed(one, "@1").reference) == ("normal@1", "base@1")
    assert signed(one.model_copy(update={"reference": ""}), "@1").reference == ""
    assert signed(one, "") == one
