"""A user's own questions: kinds inferred, answers optional, errors with their line."""

import json
from pathlib import Path

import pytest

from stillroom.errors import DataError
from stillroom.files import read_lines
from stillroom.records import Problem
from stillroom.tasks import TASKS, check, make_problems
from stillroom.tasks.benchmarks.questions import QuestionsConfig, read_questions
from toys import workplace


def write(folder: Path, *rows: object) -> Path:
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "questions.jsonl").write_text("\n".join(texts), encoding="utf-8")
    return folder


def test_all_are_tested_and_their_kinds_inferred(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {"question": "How fast?", "answer": "60 km/h"},
        {"question": "How many?", "answer": 7},
        {"question": "Is it?", "answer": True},
        {"question": "Which?", "answer": "mall", "choices": ["bank", "mall"]},
        {"question": "Said?", "answer": "7", "kind": "text", "id": "mine", "solution": "So."},
        {"question": "Root?", "answer": r"\sqrt{2}"},
    )
    splits = read_questions(QuestionsConfig(), folder)
    check(splits, trains=False)
    assert [(p.id, p.answer, p.kind) for p in splits["test"]] == [
        ("question-1", "60 km/h", "numeric"), ("question-2", "7", "numeric"), ("question-3", "yes", "boolean"),
        ("question-4", "B", "choice"), ("mine", "7", "text"), ("question-6", r"\sqrt{2}", "math"),
    ]  # fmt: skip
    assert splits["test"][3].question == "Which?\n(A) bank\n(B) mall"
    assert (splits["test"][3].choices, splits["test"][4].solution) == (("bank", "mall"), "So.")


def test_a_question_without_an_answer_can_be_asked_and_is_not_scored(tmp_path: Path) -> None:
    folder = write(tmp_path, {"question": "Why?"}, {"question": "How many?", "answer": "3"}, {"question": "When?"})
    at = workplace(tmp_path / "out")
    make_problems(TASKS["questions"], QuestionsConfig(), folder, at)
    assert [p.question for p in read_lines(at.out / "ungraded.jsonl", Problem)] == ["Why?", "When?"]
    assert [p.answer for p in read_lines(at.out / "test.jsonl", Problem)] == ["3"]
    write(tmp_path, {"question": "Why?"})
    assert set(read_questions(QuestionsConfig(), tmp_path)) == {"ungraded"}


def test_one_can_learn_from_them(tmp_path: Path) -> None:
    folder = write(tmp_path, *({"question": f"What is {i}?", "answer": i} for i in range(6)), {"question": "Why?"})
    splits = read_questions(QuestionsConfig(test=2, validation=1), folder)
    assert {name: [p.answer for p in split] for name, split in splits.items()} == {
        "train": ["0", "1", "2"], "validation": ["3"], "test": ["4", "5"], "ungraded": [""],
    }  # fmt: skip
    check(splits)
    with pytest.raises(DataError, match=r"task\.validation is 100, but questions\.jsonl.* holds 4 problems"):
        read_questions(QuestionsConfig(test=2), folder)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"answer": "5"}, "the field 'question' is missing"),
        ({"question": 5}, "the question 5 is no text"),
        ({"question": "Q?", "answer": "5", "kind": "number"}, "unknown kind 'number': did you mean 'numeric'"),
        ({"question": "Q?", "answer": ["5"]}, "neither text nor number"),
        ({"question": "Q?", "answer": "B", "choices": "AB"}, "`choices` is no list"),
        ({"question": "Q?", "answer": "Z", "kind": "choice", "choices": ["x", "y"]}, "'Z' is none of the 2 choices"),
        ({"question": "Q?", "answer": "blue", "choices": ["red", "green"]}, "'blue' is none of the 2 choices"),
        ({"question": "Q?", "anwser": "5"}, "unknown field 'anwser': did you mean 'answer'"),
        ('{"question": "Q', "not JSON"),
        ('{"question": "half a sign \\ud800", "answer": 1}', "cannot be read .*surrogates not allowed"),
        ('{"question": "Q?", "answer": ' + "7" * 5000 + "}", "cannot be read .*limit .4300 digits"),
        ("[" * 100_000, "cannot be read .*recursion"),
    ],
)
def test_a_wrong_line_is_named(row: object, told: str, tmp_path: Path) -> None:
    folder = write(tmp_path, {"question": "First?", "answer": 1}, row)
    with pytest.raises(DataError, match=rf"questions\.jsonl:2: .*{told}"):
        read_questions(QuestionsConfig(), folder)


def test_fields_of_somebody_else_s_are_no_slips(tmp_path: Path) -> None:
    row = {"question": "Q?", "answer": "5", "idx": 3, "uid": "a", "answers": ["5"], "question_id": 7, "type": "sum"}
    assert [p.answer for p in read_questions(QuestionsConfig(), write(tmp_path, row))["test"]] == ["5"]


def test_a_question_asked_twice_is_kept_once(tmp_path: Path) -> None:
    folder = write(tmp_path, {"question": "How many?", "answer": 1}, {"question": "how many", "answer": 2})
    splits = read_questions(QuestionsConfig(), folder)
    assert [p.answer for p in splits["test"]] == ["1"]
    assert splits.notes["questions.jsonl"].fates == {"refused": {"it stands above with another answer": [2]}}
