"""The test problems of a task that stands alone, by its name or as a file of questions."""

import os
from pathlib import Path

from stillroom.errors import DataError, UsageError, unknown
from stillroom.records import Problem
from stillroom.tasks import TASKS, TEST


def test_problems(task: str) -> list[Problem]:
    """Raises `UsageError` for an unknown task, `DataError` where its files are missing or hold nothing to test on."""
    data = Path(os.environ.get("STILLROOM_DATA") or "data")
    settings: dict[str, object] = {"name": task}
    if task.endswith(".jsonl"):
        data, settings = Path(task).parent, {"name": "questions", "file": Path(task).name}
    name = str(settings["name"])
    if name not in TASKS:
        raise UsageError(f"{unknown('task', name, TASKS)}; or give the path of a .jsonl file")
    splits = TASKS[name].splits(TASKS[name].config.parse(settings, task), data)
    if not splits.get(TEST):
        raise DataError(f"{task}: holds no problem whose answer is known")
    return list(splits[TEST])
