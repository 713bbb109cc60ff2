"""The stage: two students in; a dictionary, tables and findings out, each beside its nulls, and figures of them."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from stillroom.crosscoder import ITSELF, TWIN, UNTRAINED, CrosscodersConfig, StageConfig, make_crosscoder
from stillroom.crosscoder.interchange import load
from stillroom.crosscoder.model import CrosscoderConfig
from stillroom.crosscoder.reading import source
from stillroom.crosscoder.steering import SteeringConfig
from stillroom.crosscoder.steps import needs, operation, operations, told_at
from stillroom.errors import DataError
from stillroom.files import read_lines, write_lines
from stillroom.records import Finding
from stillroom.report.crosscoders import crosscoder_figures
from stillroom.students import save
from stillroom.training import FitConfig
from toys import problem, student, sums, workplace

SETTINGS = CrosscodersConfig(
    documents=40, exam=4, new_tokens=2, seeds=2,
    dictionary=CrosscoderConfig(expansion=2, k=4, dead_after=1000),
    fit=FitConfig(updates=8, batch_size=128, warmup=2, precision="float32", threads=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stage")
    for seed, name in enumerate(("reference", "subject", "twin")):
        (root / name).mkdir()
        save(student(seed=seed), root / name)
    (root / "problems").mkdir()
    for split, first in (("train", 0), ("test", 10)):
        write_lines(root / "problems" / f"{split}.jsonl", sums(18)[first : first + 10] * 4)
    parents = {name: root / name for name in ("reference", "subject", "twin", "problems")}
    config = StageConfig(reference="base", subject="distilled", twin=True, suffix="@1", settings=SETTINGS)
    make_crosscoder(config, workplace(root / "out", parents=parents))
    return root / "out"


def test_every_measure_of_the_dictionary_stands_beside_both_nulls(made: Path) -> None:
    findings = read_lines(made / "findings.jsonl", Finding)
    assert {(f.subject, f.reference, f.layer) for f in findings} == {("distilled@1", "base@1", 1)}
    told = {f.metric: f for f in findings}
    for metric in (
        "mean NRN",
        "mean distance of NRN from ½",
        "latents found",
        "dead latents",
        "explained variance, subject",
        "latents of the subject alone",
    ):
        assert {null.name for null in told[metric].nulls} == {ITSELF, TWIN}
    assert all(f.low <= f.value <= f.high for f in findings)
    shapes = [f for f in findings if f.metric.startswith("parallelogram")]
    assert {null.name for f in shapes for null in f.nulls} == {"shuffled pairs"}
    assert {f.position for f in shapes} == {"in context", "position 0"}
    stable = told["mean cosine to other dictionary seeds"]
    assert [null.name for null in stable.nulls] == [UNTRAINED]
    assert 0 < stable.nulls[0].value < 1
    assert all(told[f"explained variance, {of}"].n == 8 * 4 for of in ("reference", "subject"))  # documents
    assert told["explained variance, subject"].low < told["explained variance, subject"].high


def test_the_tables_hold_every_latent_of_every_dictionary(made: Path) -> None:
    table = pq.read_table(made / "latents.parquet")
    assert table.num_rows == 3 * 32
    assert set(table["of"].to_pylist()) == {"pair", ITSELF, TWIN}
    assert load(made / "crosscoder", ("base", "distilled"), 1).latents == 32
    with pytest.raises(DataError, match="asked about base, normal"):
        load(made / "crosscoder", ("base", "normal"), 1)


def test_the_report_draws_them(made: Path) -> None:
    figures = crosscoder_figures({"base → distilled": made, "normal → distilled": made})
    assert len({figure.anchor for figure in figures}) == len(figures)
    assert {figure.anchor.split("-")[1] for figure in figures} >= {"nrn", "parallelogram", "means"}
    assert all(figure.rows for figure in figures)


def test_what_the_subject_itself_says_is_read_kept_on_disk_and_steered(made: Path, tmp_path: Path) -> None:
    parents = {name: made.parent / name for name in ("reference", "subject", "problems")}
    changes = {"seeds": 1, "own_tokens": 5, "harvested": True, "steering": SteeringConfig(problems=2, new_tokens=2)}
    settings = SETTINGS.model_copy(update=changes)
    at = workplace(tmp_path / "out", parents=parents)
    make_crosscoder(StageConfig(reference="base", subject="distilled", settings=settings), at)
    table = pq.read_table(tmp_path / "out" / "latents.parquet")
    assert {"fires at +", "fires at step 1", "fires at step 2", "fires at value 12"} <= set(table.column_names)
    assert sum(table["fires at step 1"].to_pylist()) > 0
    assert list((at.partial / "activations pair" / "shards").glob("*.safetensors"))
    told = read_lines(tmp_path / "out" / "findings.jsonl", Finding)
    pushed = [f for f in told if " at strength " in f.metric]
    assert all([null.name for null in f.nulls] == ["not steered", "random directions"] for f in pushed)
    counts = json.loads((tmp_path / "out" / "counts.json").read_text())["pair"]
    assert counts["tokens drawn"] == counts["distinct tokens"] + counts["tokens used again"] == 8 * 128


def test_a_student_that_reads_other_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="base and filler read document 0 as different tokens"):
        source({"base": student(), "filler": student(pauses=2)}, sums(3), [[1]] * 3, 1)


def test_steps_are_told_by_the_number_that_each_adds() -> None:
    ann = student()
    told = problem("a", ("3 + 1", 4), ("4 * 2", 8), question="Ann has 3 eggs and gets 1 and 2.")
    ids = ann.prompt(told.question)
    words = [ann.tokenizer.decode([token]).strip() for token in ids]
    none, first, second = (), ("+", "step 1", "value 4"), ("*", "step 2", "value 8")
    assert list(zip(words, told_at(ann, told, ids), strict=True))[:9] == [
        ("Ann", none), ("has", none), ("3", none), ("eggs", none), ("and", none), ("gets", none),
        ("1", first), ("and", first), ("2", second),
    ]  # fmt: skip
    lost = told.model_copy(update={"question": "Ann has 3 eggs and gets 1."})
    assert set(told_at(ann, lost, ann.prompt(lost.question))) == {()}
    assert operations([told]) == ["*", "+"]
    assert needs(told, "*") and not needs(told, "-")
    assert operation("5") == ""


def test_the_default_twin_free_stage_has_one_null(tmp_path: Path, made: Path) -> None:
    root = made.parent
    parents = {name: root / name for name in ("reference", "subject", "problems")}
    quick = SETTINGS.model_copy(update={"seeds": 1, "exam": 0})
    config = StageConfig(reference="base", subject="distilled", settings=quick)
    torch.manual_seed(5)  # whatever was drawn before must not matter
    make_crosscoder(config, workplace(tmp_path / "out", parents=parents))
    findings = {f.metric: f for f in read_lines(tmp_path / "out" / "findings.jsonl", Finding)}
    assert [null.name for null in findings["mean NRN"].nulls] == [ITSELF]
    theirs = {f.metric: f for f in read_lines(made / "findings.jsonl", Finding)}
    assert findings["mean NRN"].value == theirs["mean NRN"].value
