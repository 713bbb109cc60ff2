"""Lessons for other trainers: TRL's prompt and completion rows, and LLaMA-Factory's data, index and configs.

A *cell* is one set of lessons; every cell exports to files of its own name, so that several stand side by side.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from stillroom.errors import UsageError
from stillroom.files import read_lines, write_atomic, write_json
from stillroom.records import Lesson
from stillroom.students.prompts import render

Target = Literal["trl", "llama-factory"]
TEMPLATES = ("llama3", "gemma", "alpaca", "qwen")
STUDY = {
    "stage": "sft", "do_train": True, "finetuning_type": "full", "cutoff_len": 4096, "max_samples": 10_000,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 16, "learning_rate": 5.0e-5,
    "num_train_epochs": 3.0, "lr_scheduler_type": "cosine", "warmup_ratio": 0.0, "bf16": True, "seed": 100,
    "overwrite_output_dir": True,
}  # fmt: skip
"""The granularity study's training settings (arXiv 2502.18001): 64 examples an update."""


def read_cells(named: Sequence[str]) -> dict[str, list[Lesson]]:
    """Lessons by cell, from `NAME=FOLDER` each. Raises `UsageError` for another form, or a name given twice."""
    cells: dict[str, list[Lesson]] = {}
    for one in named:
        name, mark, folder = one.partition("=")
        if not mark or not re.fullmatch(r"[\w.-]+", name) or name in cells:
            raise UsageError(f"{one!r}: expected NAME=FOLDER, the name of letters, digits, _ . and -, each name once")
        cells[name] = read_lines(Path(folder) / "lessons.jsonl", Lesson)
    return cells


def trl_rows(lessons: Sequence[Lesson]) -> list[dict[str, str]]:
    """Rows as TRL's `SFTTrainer` takes them: it adds the end of text to the completion and has its loss there alone."""
    return [{"prompt": render(lesson.prompt, "plain"), "completion": lesson.completion} for lesson in lessons]


def alpaca_rows(lessons: Sequence[Lesson]) -> list[dict[str, str]]:
    """Rows in LLaMA-Factory's alpaca format."""
    return [{"instruction": lesson.prompt, "input": "", "output": lesson.completion} for lesson in lessons]


def llama_factory_config(cell: str, model: str, template: str) -> dict[str, Any]:
    """One training run of LLaMA-Factory on one cell, with the study's settings."""
    if template not in TEMPLATES:
        raise UsageError(f"template {template!r} is not known; expected one of {', '.join(TEMPLATES)}")
    place = {"model_name_or_path": model, "template": template, "dataset_dir": ".", "dataset": cell}
    return {**place, **STUDY, "output_dir": f"saves/{cell}"}


def export(
    cells: Mapping[str, Sequence[Lesson]], target: Target, folder: Path, model: str, template: str
) -> list[Path]:
    """Writes each cell's lessons for `target` into `folder`, each file whole or not at all, and returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    if target == "trl":
        return [_lines(folder / f"{cell}.jsonl", trl_rows(lessons)) for cell, lessons in cells.items()]
    configs = {cell: llama_factory_config(cell, model, template) for cell in cells}
    made = [_lines(folder / f"{cell}.jsonl", alpaca_rows(lessons)) for cell, lessons in cells.items()]
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    index = {cell: {"file_name": f"{cell}.jsonl", "formatting": "alpaca", "columns": columns} for cell in cells}
    write_json(folder / "dataset_info.json", index)
    for cell, config in configs.items():
        write_atomic(folder / f"{cell}.yaml", yaml.safe_dump(config, sort_keys=False))
    return [*made, folder / "dataset_info.json", *(folder / f"{cell}.yaml" for cell in cells)]


def _lines(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path
