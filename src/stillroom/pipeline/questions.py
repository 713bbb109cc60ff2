"""A task that stands alone: by its name, or as a file of questions."""

import os
from pathlib import Path
from typing import NamedTuple

from stillroom.config import Config
from stillroom.errors import DataError, UsageError, unknown
from stillroom.progress import say
from stillroom.records import Problem
from stillroom.tasks import TASKS, TEST, Task, benchmarks


class Standing(NamedTuple):
    """A task, its settings, and the folder of its files."""

    task: Task
    config: Config
    data: Path

    def splits(self) -> dict[str, list[Problem]]:
        return dict(self.task.splits(self.config, self.data))


def standing(name: str) -> Standing:
    """What a name or a file's path stands for. A benchmark is read in the hub's splits where those alone are there.

    Raises `UsageError` for an unknown task, and `DataError` for a file that is not there.
    """
    data, settings = Path(os.environ.get("STILLROOM_DATA") or "data"), {"name": name}
    if name.endswith(".jsonl"):
        data, settings = Path(name).parent, {"name": "questions", "file": Path(name).name}
    if settings["name"] not in TASKS:
        raise UsageError(f"{unknown('task', name, TASKS)}; or give the path of a .jsonl file")
    task = TASKS[settings["name"]]
    config = task.config.parse(settings, name)
    absent = [file for file in task.files(config) if not (data / file).is_file()]
    if absent and "split" in task.config.model_fields:
        fetched = task.config.parse({**settings, "split": "official"}, name)
        if all((data / file).is_file() for file in task.files(fetched)):
            say(f"{name}: the hub's splits, as `stillroom fetch` brings them (split: official)")
            config, absent = fetched, []
    if absent:
        raise DataError(f"{name}: {benchmarks.absent(data / absent[0])}")
    return Standing(task, config, data)


def test_problems(name: str) -> list[Problem]:
    """Raises `DataError` too where there is nothing to test on."""
    splits = standing(name).splits()
    if not splits.get(TEST):
        raise DataError(f"{name}: holds no problem whose answer is known")
    return splits[TEST]
