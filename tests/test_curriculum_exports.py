"""Exports are what the other tools read: TRL loads and trains on ours, LLaMA-Factory's documented fields are kept."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from stillroom.cli import app
from stillroom.curriculum.exports import export, llama_factory_config, read_cells
from stillroom.errors import UsageError
from stillroom.files import write_lines
from stillroom.records import Lesson
from toys import student, sums

LESSONS = [Lesson(problem=p.id, prompt=p.question, completion=f"The answer is {p.answer}.") for p in sums(6)]


def exported(folder: Path, to: str) -> Path:
    for name in ("normal", "distilled"):
        (folder / name).mkdir()
        write_lines(folder / name / "lessons.jsonl", LESSONS)
    cells = [f"{name}={folder / name}" for name in ("normal", "distilled")]
    done = CliRunner().invoke(app, ["export", *cells, "--to", to, "-o", str(folder / "out")])
    assert done.exit_code == 0, done.output
    return folder / "out"


def test_llama_factory_gets_data_index_and_one_config_a_cell(tmp_path: Path) -> None:
    out = exported(tmp_path, "llama-factory")
    index = json.loads((out / "dataset_info.json").read_text())
    assert set(index) == {"normal", "distilled"}
    entry = index["normal"]
    row = json.loads((out / entry["file_name"]).read_text().splitlines()[0])
    assert set(entry) <= {"file_name", "formatting", "columns"}  # documented fields of a local dataset
    assert {row[column] for column in entry["columns"].values()} == {LESSONS[0].prompt, "", LESSONS[0].completion}
    config = yaml.safe_load((out / "normal.yaml").read_text())
    assert (config["dataset"], config["stage"], config["finetuning_type"]) == ("normal", "sft", "full")
    assert config["learning_rate"] == 5e-5
    assert config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] == 64


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL's own setting
def test_trl_loads_the_rows_and_learns_from_their_completions_alone(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import load_dataset

    out = exported(tmp_path, "trl")
    data = load_dataset("json", data_files=str(out / "normal.jsonl"), split="train", cache_dir=str(tmp_path / "cache"))
    assert data.column_names == ["prompt", "completion"]
    one = student()
    settings = trl.SFTConfig(
        output_dir=str(tmp_path / "trl"), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True,
        bf16=False, save_strategy="no", disable_tqdm=True, eos_token=one.tokenizer.eos_token, max_length=64,
    )  # fmt: skip
    trainer = trl.SFTTrainer(one.model, args=settings, train_dataset=data, processing_class=one.tokenizer)
    row = trainer.train_dataset[0]
    learned = [label for label in row["labels"] if label != -100]
    assert one.tokenizer.decode(learned).startswith("The answer is")
    assert learned[-1] == one.tokenizer.eos_token_id
    trainer.train()


def test_wrong_calls_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected NAME=FOLDER"):
        read_cells(["folder"])
    with pytest.raises(UsageError, match="template 'llama9' is not known"):
        llama_factory_config("normal", "m", "llama9")
    done = CliRunner().invoke(app, ["export", f"a={tmp_path}", "--to", "tlr", "-o", str(tmp_path)])
    assert "did you mean 'trl'" in str(done.exception)
    assert export({}, "trl", tmp_path / "new", "m", "llama3") == []
