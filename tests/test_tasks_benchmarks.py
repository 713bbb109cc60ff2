"""The benchmarks of the table over the real files: sizes, golds, repairs; the configs; what hold-out takes."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmark_rows import DATA, line, needs
from stillroom.errors import ConfigError, DataError
from stillroom.records import Problem
from stillroom.tasks import TASKS, check, make_problems
from stillroom.tasks.benchmarks import BENCHMARKS, Splits, config_of, read
from stillroom.tasks.benchmarks.table import Benchmark
from toys import workplace

STUDY = {
    "gsm8k": (7473, 0, 1319), "svamp": (700, 0, 300), "aqua": (5976, 0, 254), "math": (1296, 0, 500),
    "csqa": (9699, 0, 1221), "openbookqa": (4900, 0, 500), "strategyqa": (1999, 0, 290),
    "gsm8k_aug": (7188, 500, 1319), "gsm_hard": (0, 0, 1319), "multiarith": (0, 0, 580), "asdiv": (0, 0, 2214),
    "mawps": (0, 0, 1850), "math500": (0, 0, 500),
}  # fmt: skip


def real(name: str) -> Splits:
    return read(name, config_of(name)(), DATA)


@pytest.mark.parametrize("name", STUDY)
def test_the_published_files_keep_every_law_and_their_sizes(name: str) -> None:
    if missing := [f for f in BENCHMARKS[name].study.values() if not (DATA / f).exists()]:
        pytest.skip(f"needs {missing[0]}: set STILLROOM_DATA to its folder")
    splits = real(name)
    check(splits, trains="train" in splits)  # every gold grades correct against itself, no test problem is taught
    train, validation, test = STUDY[name]
    held = 100 if train and not validation else validation
    sizes = {"train": train - (0 if validation else held), "validation": held, "test": test}
    assert {split: len(problems) for split, problems in splits.items()} == {k: v for k, v in sizes.items() if v}


@needs("aqua_train.jsonl", "aqua_test.jsonl")
def test_what_is_mended_kept_and_refused_is_counted() -> None:
    notes = {file: n.summary() for file, n in real("aqua").notes.items()}
    train, test = notes["aqua_train.jsonl"], notes["aqua_test.jsonl"]
    assert (train["rows"], train["problems"]) == (6010, 5976)
    assert train["refused"]["another option says the same as the right one"]["rows"] == 34
    assert train["mended"]["mojibake turned back"]["rows"] > 100
    assert test["kept"]["another option says the same as the right one"]["rows"] == 4


@needs("gsm8k_aug_train_7500.jsonl")
def test_steps_that_students_learn_lead_to_the_answer_and_none_is_missing() -> None:
    splits = real("gsm8k_aug")
    assert all(problem.steps for problem in splits["train"])
    assert sum(not problem.steps for problem in splits["test"]) == 93 + 18
    assert sum(not problem.steps for problem in splits["validation"]) == 28 + 6


@needs("svamp_train.jsonl", "teacher_cot.jsonl")
def test_ids_and_questions_are_those_of_the_recorded_rationales() -> None:
    known = {p.id: p for name in ("svamp", "gsm8k", "math") for split in real(name).values() for p in split}
    for text in (DATA / "teacher_cot.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(text)
        if row["dataset"] in ("svamp", "gsm8k"):
            assert known[row["id"]].question == row["question"].strip()


@needs("svamp_train.jsonl")
def test_steps_of_equations_end_in_the_answer() -> None:
    agreeing = [p.steps[-1].value == p.answer for split in real("svamp").values() for p in split if p.steps]
    assert sum(agreeing) / len(agreeing) > 0.99


def test_validation_is_the_end_of_training_where_it_has_no_file(tmp_path: Path) -> None:
    folder = svamp(tmp_path, 5)
    splits = read("svamp", config_of("svamp").parse({"validation": 2}, ""), folder)
    assert {name: [p.id for p in split] for name, split in splits.items()} == {
        "train": ["c-0", "c-1", "c-2"], "validation": ["c-3", "c-4"], "test": ["t-1"],
    }  # fmt: skip
    assert splits["train"][0] == Problem(
        task="svamp", id="c-0", question="Ann had 0 eggs. How many are 3 fewer?", answer="1",
        story="Ann had 0 eggs.",
        steps=({"expression": "4 - 3", "value": "1"},),  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(DataError, match=r"task\.validation is 5, but svamp_train\.jsonl holds 5 problems"):
        read("svamp", config_of("svamp").parse({"validation": 5}, ""), folder)


def svamp(folder: Path, count: int) -> Path:
    train = [line("svamp", ID=f"c-{i}", Body=f"Ann had {i} eggs.") for i in range(count)]
    (folder / "svamp_train.jsonl").write_text("\n".join(train))
    (folder / "svamp_test.jsonl").write_text(line("svamp", ID="t-1", Body="Ben had none."))
    return folder


def test_the_notes_of_a_stage_stand_beside_its_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = svamp(tmp_path, 5)
    with (folder / "svamp_train.jsonl").open("a") as file:
        file.write("\n" + line("svamp", ID="again", Body="Ann had 4  EGGS"))
    at = workplace(tmp_path / "out")
    make_problems(TASKS["svamp"], config_of("svamp").parse({"validation": 2}, ""), folder, at)
    notes = json.loads((at.out / "notes.json").read_text())
    refused = {"it stands above": {"rows": 1, "first_lines": [6]}}
    assert notes["svamp_train.jsonl"] == {"rows": 6, "problems": 5, "refused": refused}
    assert notes["svamp_test.jsonl"] == {"rows": 1, "problems": 1}
    assert "svamp_train.jsonl: 5 problems of 6 rows; 1 refused (it stands above)" in capsys.readouterr().err


def test_a_task_that_only_tests_is_not_trained_on(tmp_path: Path) -> None:
    (tmp_path / "ood_mawps.jsonl").write_text(line("mawps"))
    row = TASKS["mawps"]
    make_problems(row, row.config(), tmp_path, workplace(tmp_path / "out"))
    assert (tmp_path / "out" / "test.jsonl").exists()
    with pytest.raises(ConfigError, match="validation"):
        row.config.parse({"validation": 5}, "")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_official_splits_lie_in_files_of_their_own_and_configs_are_frozen(name: str) -> None:
    benchmark: Benchmark = BENCHMARKS[name]
    study, official = (TASKS[name].files(TASKS[name].config(split=split)) for split in ("study", "official"))
    assert official and not set(study) & set(official)
    assert set(benchmark.study) <= set(benchmark.hub.splits) | {"validation"}
    config = TASKS[name].config()
    with pytest.raises(ValidationError):
        config.split = "official"  # type: ignore[attr-defined]
