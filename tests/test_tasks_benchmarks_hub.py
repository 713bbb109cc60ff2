"""Rows as the hub's dataset pages show them become rows of ours, and problems."""

from typing import Any

import pytest

from stillroom.errors import DataError
from stillroom.tasks.benchmarks import BENCHMARKS
from stillroom.tasks.benchmarks.hub import Hub, told
from stillroom.tasks.benchmarks.notes import Notes

COLUMNS = {"label": ["A", "B"], "text": ["bank", "mall"]}
HUB: dict[str, tuple[dict[str, Any], str]] = {
    "gsm8k": ({"question": "Q?", "answer": "1+1=<<1+1=2>>2\n#### 2"}, "2"),
    "svamp": (
        {
            "ID": "chal-777", "Body": "Body.", "Question": "Q?", "Equation": "( 8.0 - 3.0 )", "Answer": "5.0",
            "Type": "Subtraction", "question_concat": "Body. Q?",
        },
        "5",
    ),
    "aqua": ({"question": "Q?", "options": ["A)21", "B)21.5"], "rationale": "So.", "correct": "B"}, "B"),
    "math": ({"problem": "Q?", "level": "Level 5", "type": "Algebra", "solution": r"$\boxed{x^2}$"}, "x^2"),
    "csqa": ({"id": "1", "question": "Q?", "question_concept": "c", "choices": COLUMNS, "answerKey": "A"}, "A"),
    "openbookqa": ({"id": "7-980", "question_stem": "Q?", "choices": COLUMNS, "answerKey": "B"}, "B"),
    "strategyqa": (
        {"qid": "b8", "term": "t", "description": "d", "question": "Q?", "answer": True, "facts": "It is."}, "yes",
    ),
    "gsm8k_aug": ({"question": "Q?", "steps": ["<<600*30/100=180>>"], "answer": "180"}, "180"),
    "gsm_hard": ({"input": "Q?", "code": "def solution(): ...", "target": -9867630.0}, "-9867630"),
    "multiarith": ({"question": " Q? ", "final_ans": "1,039"}, "1039"),
    "asdiv": ({"body": "Body.", "question": "Q?", "answer": "9 (a)", "formula": "7+2=9"}, "9"),
    "mawps": (
        {
            "id": "mawps__1", "question": "Q?", "chain": "", "result": "43", "result_float": 43.0, "equation": "x=7",
            "expression": "70-27",
        },
        "43",
    ),
    "math500": (
        {"problem": "Q?", "solution": "S", "answer": "2", "subject": "Algebra", "level": 2, "unique_id": "test/1"}, "2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_row_of_the_hub_becomes_a_problem(name: str) -> None:
    benchmark, (row, answer) = BENCHMARKS[name], HUB[name]
    ours = benchmark.hub.convert(row)
    assert set(benchmark.fields) <= set(ours)
    notes = Notes(taught=True)
    found = benchmark.read(ours, notes)
    assert (found.answer, found.question.splitlines()[0].removeprefix("Body. ")) == (answer, "Q?")
    assert "refused" not in notes.fates


def test_a_dataset_that_changed_is_told_by_what_is_missing() -> None:
    with (
        pytest.raises(DataError, match=r"hf://datasets/a/b: the split or field 'question' is missing"),
        told(Hub("a/b", {})),
    ):
        raise KeyError("question")
