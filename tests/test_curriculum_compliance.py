"""Compliance is counted by hand on small texts, and reproduces what is known of the recorded rationales."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stillroom.cli import app
from stillroom.curriculum.compliance import (
    Cell,
    ComplianceConfig,
    Text,
    compliance,
    counts,
    distinct,
    make_compliance,
    read_texts,
    similarity,
    spearman,
)
from stillroom.errors import DataError
from stillroom.files import write_lines
from stillroom.records import Rationale
from toys import problem, workplace

DATA = Path(os.environ.get("STILLROOM_DATA") or Path(__file__).parents[2] / "shared" / "data")


def texts(level: int, *cots: str, answer: str = "9") -> list[Text]:
    return [Text(Cell("toy", "t", "plain", level), str(i), cot, answer) for i, cot in enumerate(cots)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ann has 5. She gets 4 more. 5 + 4 = 9. The answer is 9", (16, 4, 4, 1)),
        ("1. Count: 2.5 kg.\n2. Add: 2.5 + 1 = 3.5.", (11, 2, 2, 1)),
        ("", (0, 0, 0, 0)),
        ("x = 5 and y=7", (5, 1, 1, 2)),
        ("Step 1: add\nStep 2: take\nso it ends", (9, 3, 2, 0)),
    ],
)
def test_counts_by_hand(text: str, expected: tuple[int, int, int, int]) -> None:
    assert counts(text) == expected


def test_diversity_by_hand() -> None:
    assert distinct(["a b c", "a b d"]) == pytest.approx(3 / 4)
    assert distinct([]) == 0
    assert similarity(["a b", "a b"]) == pytest.approx(1)
    assert similarity(["a b", "a c"]) == pytest.approx(1 / 2)
    assert similarity(["a b"]) == 0


def test_spearman_by_hand() -> None:
    assert spearman(np.array([[1, 2, 3], [1, 2, 3]])).value == pytest.approx(1)
    assert spearman(np.array([[3, 2, 1]])).value == pytest.approx(-1)
    assert spearman(np.array([[5, 5, 5]])).value == 0
    assert spearman(np.array([[1, 3, 2]])).value == pytest.approx(0.5)


def test_levels_that_do_not_rise_are_flagged() -> None:
    """Pitfall 14: granularity is not length."""
    short, long = ("a b c d 9", "a b c d 9 9"), ("a " * 30 + "9", "b " * 31 + "9")
    report = compliance([*texts(1, *short), *texts(2, *long), *texts(3, *long), *texts(5, *short)])
    (family,) = report.families
    assert family.blurred == [(2, 3), (3, 5)]
    assert [m.words.value for m in report.cells] == [5.5, 31.5, 31.5, 5.5]
    assert report.cells[0].accuracy is not None
    assert report.cells[0].accuracy.value == 1


def test_rates_and_cost_by_hand() -> None:
    cell = Cell("toy", "t", "plain", 1)
    rows = [
        Text(cell, "0", "5 + 4 = 9. The answer is 9", "9", usd=0.01), Text(cell, "1", "The answer is 8", "9", usd=0.02),
        Text(cell, "2", "5 + 4 = 9. The answer is 9", "9", truncated=True, usd=0.03),
        Text(cell, "3", "The given answer is 9. The answer is 9", "9"),
    ]  # fmt: skip
    (measures,) = compliance(rows).cells
    assert (measures.truncated.value, measures.kept.value) == (0.25, 0.25)
    assert measures.accuracy is not None
    assert measures.accuracy.value == 0.75
    assert measures.usd_per_kept == pytest.approx(0.06)


def test_a_bare_answer_counts_as_empty_and_equations_are_told_by_step() -> None:
    (measures,) = compliance(texts(1, "The answer is 9", "Add 4 to 5. That is 5 + 4 = 9. The answer is 9")).cells
    assert measures.kept.value == 0.5
    assert measures.equations_a_step == pytest.approx(1 / 4)  # one equation in 1 + 3 sentences


def test_a_single_level_has_no_family_and_a_text_without_gold_no_accuracy() -> None:
    report = compliance(texts(1, "a b", answer=""))
    assert report.families == []
    assert report.cells[0].accuracy is None


def test_a_row_may_say_its_model_and_the_kind_of_its_answer(tmp_path: Path) -> None:
    row = {"dataset": "mine", "id": 1, "teacher": "openai", "granularity": 1, "format": "plain", "answer": "yes",
           "cot": "Whales are long. So the answer is yes."}  # fmt: skip
    (tmp_path / "cot.jsonl").write_text(json.dumps({**row, "model": "big", "kind": "boolean"}) + "\n")
    (text,) = read_texts(tmp_path / "cot.jsonl")
    assert (text.cell.teacher, text.kind) == ("big", "boolean")
    (measures,) = compliance([text]).cells
    assert measures.accuracy is not None
    assert measures.accuracy.value == 1


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cot.jsonl"
    file.write_text('{"dataset": "toy"}\n')
    with pytest.raises(DataError, match=r"cot.jsonl:1: 'teacher': expected dataset, id"):
        list(read_texts(file))


@pytest.mark.skipif(not DATA.exists(), reason="the recorded rationales lie in shared/data, which is not here")
def test_the_recorded_rationales_are_measured_as_they_are_known() -> None:
    done = CliRunner().invoke(app, ["compliance", str(DATA / "teacher_cot.jsonl"), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    words = {tuple(m["cell"]): (m["n"], round(m["words"][0], 1)) for m in report["cells"]}
    known = (line.split(" | ") for line in PROVENANCE.splitlines() if line.count(" | ") == 7)
    table = {
        (dataset.strip("| "), teacher, form, int(level)): (int(rows), float(mean))
        for dataset, teacher, level, form, rows, mean, *_ in known
        if level.isdigit()
    }
    assert len(table) == 44
    assert {cell: words[cell] for cell in table} == table
    blurred = {(f["dataset"], f["teacher"], f["format"]): [tuple(p) for p in f["blurred"]] for f in report["families"]}
    assert blurred["math", "gemini", "plain"] == [(3, 4), (4, 5), (5, 6)]
    assert {(4, 5), (5, 6)} <= set(blurred["math", "chatgpt", "plain"])
    assert blurred["svamp", "chatgpt", "plain"] == []


PROVENANCE = (DATA / "PROVENANCE.md").read_text() if (DATA / "PROVENANCE.md").exists() else ""


def test_a_run_s_rationales_are_measured_and_a_task_s_own_are_not_graded(tmp_path: Path) -> None:
    for name in ("problems", "rationales", "out"):
        (tmp_path / name).mkdir()
    told = [
        Rationale(problem="p0", teacher=teacher, granularity=level, format="plain", text=text)
        for teacher, level, text in (
            ("t", 1, "It is 5."),
            ("t", 2, "2 + 3 = 5. It is 5."),
            ("worked", None, "2 + 3 = 5"),
        )
    ]
    write_lines(tmp_path / "problems" / "train.jsonl", [problem("p0", ("2 + 3", 5))])
    write_lines(tmp_path / "rationales" / "rationales.jsonl", [*told, told[0].model_copy(update={"sample": 1})])
    parents = {name: tmp_path / name for name in ("problems", "rationales")}
    make_compliance(ComplianceConfig(each=1), workplace(tmp_path / "out", parents=parents))
    cells = {c["cell"][3]: c for c in json.loads((tmp_path / "out" / "compliance.json").read_text())["cells"]}
    assert {level: cell["n"] for level, cell in cells.items()} == {1: 1, 2: 1, None: 1}
    assert cells[1]["words"][0] == 3
    assert cells[1]["accuracy"][0] == 1
    assert cells[None]["accuracy"] is None


def test_a_part_of_a_run_s_rationales_is_taken_from_all_of_a_sorted_file(tmp_path: Path) -> None:
    for name in ("problems", "rationales", "out"):
        (tmp_path / name).mkdir()
    write_lines(tmp_path / "problems" / "train.jsonl", [problem("p0", ("2 + 3", 5))])
    texts = [" ".join(["word"] * length) for length in (1, 1, 1, 1, 9, 9)]
    told = [Rationale(problem="p0", teacher="worked", granularity=None, format="plain", text=text) for text in texts]
    write_lines(tmp_path / "rationales" / "rationales.jsonl", told)
    parents = {name: tmp_path / name for name in ("problems", "rationales")}
    make_compliance(ComplianceConfig(each=3), workplace(tmp_path / "out", parents=parents))
    (cell,) = json.loads((tmp_path / "out" / "compliance.json").read_text())["cells"]
    assert cell["n"] == 3
    assert cell["words"][0] == pytest.approx((1 + 1 + 9) / 3)
