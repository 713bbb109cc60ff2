"""Hand-made cases, each with the reason why it is right or wrong: `adversarial/KIND.jsonl`."""

import json
from pathlib import Path
from typing import Any

import pytest

from stillroom.tasks.answers import KINDS, Question, grade_all

FOLDER = Path(__file__).parent / "adversarial"
KEYS = ("kind", "gold", "prediction_text")


def cases(kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_is_graded_as_its_reason_says(kind: str) -> None:
    rows = cases(kind)
    verdicts = grade_all(Question(*(row[key] for key in KEYS), tuple(row.get("choices", ()))) for row in rows)
    wrong = [
        (row["reason"], row["gold"], row["prediction_text"], verdict.extracted)
        for row, verdict in zip(rows, verdicts, strict=True)
        if verdict.correct != row["correct"] or verdict.rule == "timeout"
    ]
    assert not wrong


@pytest.mark.parametrize("kind", KINDS)
def test_the_suite_is_large_and_has_both_answers(kind: str) -> None:
    rows = cases(kind)
    assert len(rows) >= 60
    assert all(row["kind"] == kind and row["reason"] for row in rows)
    assert sum(row["correct"] for row in rows) >= 10 <= sum(not row["correct"] for row in rows)
