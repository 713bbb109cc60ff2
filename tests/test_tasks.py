"""What every task must keep is checked before a problem is written."""

from pathlib import Path

import pytest

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.files import read_lines
from stillroom.records import Problem
from stillroom.tasks import TASKS, Task, check, make_problems
from toys import sums, workplace

TOY = sums(8)


def splits(**more: list[Problem]) -> dict[str, list[Problem]]:
    return {"train": TOY[:4], "validation": TOY[4:6], "test": TOY[6:], **more}


def test_good_splits_pass() -> None:
    check(splits())
    check(splits(more=[TOY[6].model_copy(update={"id": "again"})]))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"train": []}, "no problem for the split 'train'"),
        ({"validation": []}, "no problem for the split 'validation'"),
        ({"test": [TOY[0].model_copy(update={"question": "another"})]}, "problem id 'sum-0' stands 2 times"),
        ({"test": [TOY[6], TOY[6]]}, "problem id 'sum-6' stands 2 times"),
        ({"test": [TOY[6].model_copy(update={"answer": ""})]}, "problem 'sum-6': its answer '' grades as wrong"),
    ],
)
def test_a_broken_law_is_named(more: dict[str, list[Problem]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        check(splits(**more))


def test_a_task_that_only_tests_needs_no_training_split_and_may_hold_questions_without_an_answer() -> None:
    check({"test": TOY[6:]}, trains=False)
    check({"ungraded": [TOY[0].model_copy(update={"answer": ""})]}, trains=False)


def test_problems_are_written_a_file_a_split_once_they_are_checked(tmp_path: Path) -> None:
    at = workplace(tmp_path)
    make_problems(Task(Config, lambda config, data: splits()), Config(), tmp_path, at)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl", "validation.jsonl"]
    assert read_lines(tmp_path / "train.jsonl", Problem) == TOY[:4]
    broken = workplace(tmp_path / "broken")
    with pytest.raises(DataError):
        make_problems(Task(Config, lambda config, data: splits(train=[])), Config(), tmp_path, broken)
    assert list(broken.out.iterdir()) == []


def test_the_embedded_tasks_keep_every_law() -> None:
    row = TASKS["abacus"]
    check(row.splits(row.config(train=300, narrated=90, validation=5, test=20), Path()))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_s_name_is_its_config_s(name: str) -> None:
    assert TASKS[name].config().model_dump()["name"] == name
