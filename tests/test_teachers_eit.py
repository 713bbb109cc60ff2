"""The granularity study's repository, in small: its index is read, its faults are mended, what cannot be is told."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stillroom.cli import app
from stillroom.errors import DataError
from stillroom.teachers import TEACHERS
from stillroom.teachers.eit import FILE, Cell, build, cells, mended

ONE = "Count: 1 egg. The answer is 1"
COLUMNS = {"prompt": "instruction", "response": "output"}
SVAMP = [
    {"ID": f"chal-{i}", "Body": f"Ann has {i} eggs.", "Question": "How many has she?", "Equation": f"( {i}.0 + 0.0 )",
     "Answer": float(i)} for i in range(1, 6)
]  # fmt: skip
CSQA = [
    {"id": f"c{i}", "answerKey": "B", "question": {"question_concept": "x", "stem": f"Where is {word}?",
     "choices": [{"label": label, "text": text} for label, text in (("A", "neck"), ("B", "box, red"))]}}
    for i, word in enumerate(("a ring", "a shoe", "a hat"))
]  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, Path]:
    """A checkout of the repository and a data folder, with two benchmarks in it."""
    data, source = tmp_path / "data", tmp_path / "eit" / "data"
    data.mkdir()
    source.mkdir(parents=True)
    for name, rows in (("svamp_train", SVAMP), ("svamp_test", [SVAMP[0] | {"ID": "t", "Body": "x"}]),
                       ("csqa_train", CSQA), ("csqa_dev", [CSQA[0] | {"id": "d"}])):  # fmt: skip
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [f"{row['Body']} {row['Question']}" for row in SVAMP]
    files = {
        "SVAMP_ChatGPT_level1_ranked.json": [(asked[0], ONE), (asked[1], "The answer is 2")],
        "SVAMP_gemini_level1_ranked.json": [
            (asked[0], ONE), (asked[2], "Half: \x0crac{6}{2} \times 1 = 3. The answer is 3"),
        ],
        "0_SVAMP_chatgpt_level3BSM.json": [
            (asked[3], "How many? There are 4. The answer is 4"), ("Else?", "No. It is."),
        ],
        "csqa_llama_level2_ranked.json": [
            ("Q: Where is a shoe? Answer choices: A: neck, B: box, red", "Shoes are kept so. The answer is B"),
            ("Q: Where is a shoe? Answer choices: A: neck, B: box, red", "Shoes lie in one. The answer is B"),
        ],
    }  # fmt: skip
    for name, rows in files.items():
        (source / name).write_text(
            json.dumps([{"instruction": q, "output": a} for q, a in rows] + [{"instruction": "?"}])
        )
    index = {
        "SVAMP_ChatGPT_level1": "SVAMP_ChatGPT_level1_ranked.json",
        "SVAMP_gemini_level1": "SVAMP_gemini_level1_ranked.json",
        "svamp_bloom_bsm": "0_SVAMP_chatgpt_level3BSM.json", "cQA_llama_level2": "csqa_llama_level2_ranked.json",
        "SVAMP_only_ans": "SVAMP_only_ans.json", "SVAMP_llama_level4": "SVAMP_llama_level4_ranked.json",
    }  # fmt: skip
    described = {name: {"file_name": file, "columns": COLUMNS} for name, file in index.items()}
    (source / "dataset_info.json").write_text(json.dumps(described))
    return source.parent, data


def test_cells_are_read_from_the_index() -> None:
    index = {
        "math_mix_chatgpt_level2": {"file_name": "math_mix_level2.json", "columns": COLUMNS},
        "gsm8k_gemma_sym": {"file_name": "0_gsm8k_chatgpt_level5SYM.json", "columns": COLUMNS},
        "auqa_human": {"file_name": "aqua_human.json", "columns": COLUMNS},
        "GSM8k_only_ans": {"file_name": "gsm_train_onlyans.json", "columns": COLUMNS},
    }
    assert [cell[:4] for cell in cells(index)] == [
        ("math", "chatgpt", "plain", 2), ("gsm8k", "chatgpt", "sym", 5), ("aqua", "human", "human", None),
    ]  # fmt: skip
    assert Cell._fields[4] == "file"


def test_latex_that_an_escape_ate_is_turned_back() -> None:
    assert mended("\x0crac{1}{2} \times 3 \text{cm} \x08oxed{1}") == "\\frac{1}{2} \\times 3 \\text{cm} \\boxed{1}"
    assert mended("a\tb") == "a\tb"


def test_the_repository_becomes_rows_that_the_recorded_teacher_reads(checkout: tuple[Path, Path]) -> None:
    source, data = checkout
    built = build(source, data)
    rows = [json.loads(line) for line in (data / FILE).read_text().splitlines()]
    assert [(r["dataset"], r["teacher"], r["format"], r["granularity"], r["id"]) for r in rows] == [
        ("svamp", "chatgpt", "plain", 1, "chal-1"), ("svamp", "gemini", "plain", 1, "chal-3"),
        ("svamp", "chatgpt", "bsm", 3, "chal-4"), ("csqa", "llama3-70b", "plain", 2, "c1"),
    ]  # fmt: skip
    assert rows[1]["cot"] == "Half: \\frac{6}{2} \\times 1 = 3. The answer is 3"
    assert (rows[0]["answer"], rows[3]["answer"]) == ("1", "B")
    assert built.missing == ["SVAMP_llama_level4_ranked.json"]
    assert built.notes == {
        "texts without reasoning": 1, "rows without a question or a text": 4, "texts with LaTeX turned back": 1,
        "questions that are no training problem here": 1, "texts that are another teacher's": 1,
        "questions that stand twice in a file": 1,
    }  # fmt: skip
    row = TEACHERS["recorded"]
    config = row.config(file=FILE, dataset="svamp", teacher="chatgpt", granularity=3, format="least-to-most")
    from stillroom.tasks import TASKS

    train = TASKS["svamp"].splits(TASKS["svamp"].config(validation=1), data)["train"]
    (rationale,) = row.write(config, train, data)
    assert (rationale.problem, rationale.conclusion) == ("chal-4", "The answer is 4")


def test_the_command_builds_and_names_what_is_missing(checkout: tuple[Path, Path], tmp_path: Path) -> None:
    source, data = checkout
    done = CliRunner().invoke(app, ["fetch", "eit", "--from", str(source), "--to", str(data)])
    assert done.exit_code == 0, done.output
    assert "4 rows in 4 cells" in done.output
    assert "1 files that its index names are not there" in done.output
    with pytest.raises(DataError, match="give a checkout of EIT-NLP"):
        build(tmp_path / "nowhere", data)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="bring the benchmarks first"):
        build(source, tmp_path / "empty")


DATA = Path(os.environ.get("STILLROOM_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.mark.skipif(not DATA.exists(), reason="the recorded rationales lie in shared/data, which is not here")
def test_every_recorded_cell_loads(tmp_path: Path) -> None:
    from stillroom.records import Problem

    lines = [json.loads(line) for line in (DATA / "teacher_cot.jsonl").read_text().splitlines()]
    found: dict[tuple[str, str, str, int | None], list[dict[str, object]]] = {}
    for r in lines:
        found.setdefault((r["dataset"], r["teacher"], r["format"], r["granularity"]), []).append(r)
    row = TEACHERS["recorded"]
    assert len(found) == 47
    for cell, own in found.items():
        dataset, teacher, form, level = cell
        problems = [Problem(task=dataset, id=r["id"], question="?", answer="1") for r in own]
        (tmp_path / "cell.jsonl").write_text("".join(json.dumps(r) + "\n" for r in own))
        config = row.config(file="cell.jsonl", dataset=dataset, teacher=teacher, format=form, granularity=level)
        written = row.write(config, problems, tmp_path)
        assert [one.problem for one in written] == [r["id"] for r in own], cell
