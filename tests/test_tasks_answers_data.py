"""Every gold of every benchmark against itself, and the teachers' rationales, which end in the gold by construction."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom.records import Kind
from stillroom.tasks.answers import Question, grade, grade_all

DATA = Path(os.environ.get("STILLROOM_DATA") or Path(__file__).parents[2] / "shared" / "data")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmarks: set STILLROOM_DATA to their folder")

GOLDS: dict[str, tuple[Any, Any]] = {
    **dict.fromkeys(
        ("gsm8k_train", "gsm8k_test"), ("numeric", lambda row: row["answer"].rpartition("####")[2].strip())
    ),
    **dict.fromkeys(("svamp_train", "svamp_test"), ("numeric", lambda row: row["Answer"])),
    **dict.fromkeys(("aqua_train", "aqua_dev", "aqua_test"), ("choice", lambda row: row["correct"])),
    **dict.fromkeys(("math_train", "math500_test"), ("math", lambda row: row["answer"])),
    **dict.fromkeys(("csqa_train", "csqa_dev"), ("choice", lambda row: row["answerKey"])),
    **dict.fromkeys(("openbookqa_train", "openbookqa_test"), ("choice", lambda row: row["answerKey"])),
    **dict.fromkeys(("strategyqa_train", "strategyqa_test"), ("boolean", lambda row: ("no", "yes")[row["answer"]])),
    "ood_gsm_hard": ("numeric", lambda row: row["target"]),
    "ood_multiarith": ("numeric", lambda row: row["lSolutions"][0]),
    **dict.fromkeys(
        ("ood_asdiv", "gsm8k_aug_train_7500", "gsm8k_aug_valid", "gsm8k_aug_test"),
        ("numeric", lambda row: row["answer"]),
    ),
    "ood_mawps": ("numeric", lambda row: row["target"]),
}


def rows(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / f"{name}.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def options(row: dict[str, Any]) -> tuple[str, ...]:
    found = row.get("options") or row.get("choices") or (row["question"]["choices"] if "answerKey" in row else ())
    return tuple(each["text"] if isinstance(each, dict) else each for each in found)


def kind_of(kind: Kind, gold: str) -> Kind:
    """ASDiv and MAWPS ask for some names and some yes or no."""
    return "text" if kind == "numeric" and not any(map(str.isdigit, gold)) else kind


@pytest.mark.parametrize("name", GOLDS)
def test_every_gold_is_right_against_itself(name: str) -> None:
    kind, read = GOLDS[name]
    golds = [(str(read(row)), options(row) if kind == "choice" else ()) for row in rows(name)]
    golds = [(gold, choices) for gold, choices in golds if "string(n)" not in gold]  # a gold cut out of a drawing
    for form in ("{}", "The answer is {}.", "First 3 + 4 = 7.\n**Answer:** {}"):
        asked = (Question(kind_of(kind, gold), gold, form.format(gold), choices) for gold, choices in golds)
        wrong = [gold for (gold, _), verdict in zip(golds, grade_all(asked), strict=True) if not verdict.correct]
        assert not wrong, form


def teachers() -> list[tuple[str, str, str, str, str]]:
    return [
        (row["dataset"], row["id"], "math" if row["dataset"] == "math" else "numeric", str(row["answer"]), row["cot"])
        for row in rows("teacher_cot")
    ]


def test_the_teachers_rationales_are_right() -> None:
    found = teachers()
    verdicts = grade_all(Question(kind, gold, text) for _, _, kind, gold, text in found)  # type: ignore[arg-type]
    wrong = [(row[1], row[3], v.extracted) for row, v in zip(found, verdicts, strict=True) if not v.correct]
    assert len(wrong) <= 0.001 * len(found), wrong


def test_the_teachers_rationales_are_wrong_against_another_gold_of_their_data_set() -> None:
    found = teachers()
    golds = {data: sorted({row[3] for row in found if row[0] == data}) for data in {row[0] for row in found}}
    others = [golds[data][(golds[data].index(gold) + 1) % len(golds[data])] for data, _, _, gold, _ in found]
    pairs = [(Question(row[2], gold, row[4]), row) for gold, row in zip(others, found, strict=True)]  # type: ignore[arg-type]
    verdicts = grade_all(question for question, _ in pairs)
    right = [
        (row[1], row[3], question.gold, verdict.extracted)
        for (question, row), verdict in zip(pairs, verdicts, strict=True)
        if verdict.correct and not grade(question.kind, row[3], question.gold).correct
    ]
    assert not right
