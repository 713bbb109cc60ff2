"""A student behind a server answers as it does in this process; another's replies are never recorded."""

import json
from pathlib import Path

import pytest

from loopback import OK, Loopback
from stillroom.errors import TeacherError, UsageError
from stillroom.evaluation.answering import AnswerConfig, ask
from stillroom.evaluation.endpoint import Endpoint, same_model
from stillroom.evaluation.local import local
from stillroom.teachers.journal import Journal
from stillroom.teachers.limits import Limits
from test_teachers_served import served
from toys import student, sums

CONFIG = AnswerConfig(new_tokens=8, batch_size=4)
PROBLEMS = sums(12)
QUESTIONS = [p.question for p in PROBLEMS]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none-needed")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_predictions_through_a_server_are_those_of_this_process(kind: str, tmp_path: Path) -> None:
    one = student(kind)
    here = ask(local(one, CONFIG), PROBLEMS, QUESTIONS, 1, tmp_path / "here.jsonl", "here").predictions
    with served(one) as url:
        endpoint = Endpoint("toy", url, CONFIG, tmp_path / "journal.sqlite")
        there = ask(endpoint, PROBLEMS, QUESTIONS, 1, tmp_path / "there.jsonl", "there").predictions
    assert there == here
    assert len({p.text for p in here}) > 3
    # the journal has it all: the server is gone, and nothing is lost
    again = ask(endpoint, PROBLEMS, QUESTIONS, 1, tmp_path / "again.jsonl", "again").predictions
    assert again == here


def test_samples_are_asked_one_by_one_and_a_seed_draws_others(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"samples": 3, "temperature": 0.7})
    with served(student()) as url:
        endpoint = Endpoint("toy", url, config, tmp_path / "journal.sqlite")
        found = ask(endpoint, PROBLEMS[:2], QUESTIONS[:2], 3, tmp_path / "a.jsonl", "a").predictions
    assert [(p.problem, p.sample) for p in found] == [(f"sum-{i}", s) for i in range(2) for s in range(3)]
    draws = {
        seed: [a.sample for a in Endpoint("toy", "http://h/v1", config.model_copy(update={"seed": seed}), tmp_path)
               ._asks(["a", "a", "a", "a", "a", "a"])]
        for seed in (0, 1)
    }  # fmt: skip
    assert draws == {0: [0, 1, 2, 0, 1, 2], 1: [3, 4, 5, 3, 4, 5]}


def test_a_server_of_another_model_is_refused_and_nothing_is_recorded(tmp_path: Path) -> None:
    other = {"id": "c", "object": "chat.completion", "created": 0, "model": "another", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "2"}, "finish_reason": "stop"}]}  # fmt: skip
    with Loopback(always=lambda *_: (200, None, json.dumps(other))) as server:
        endpoint = Endpoint("toy", server.openai, CONFIG, tmp_path / "journal.sqlite", Limits(attempts=1))
        with pytest.raises(TeacherError, match="asked for 'toy' and answered as 'another': nothing was recorded"):
            ask(endpoint, PROBLEMS, QUESTIONS, 1, tmp_path / "a.jsonl", "a")
    assert (tmp_path / "a.jsonl").read_text() == ""
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert list(journal.summary()) == []


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("m", "m", True), ("m", "", True), ("gpt-4o", "gpt-4o-2024-08-06", True), ("/path/m", "/path/m@main", True),
        ("gpt-4o", "gpt-4o-mini", False), ("m", "n", False), ("m-1", "m", False), ("m", "mm", False),
    ],
)  # fmt: skip
def test_a_dated_name_is_the_same_model_and_a_longer_one_is_not(asked: str, answered: str, same: bool) -> None:
    assert same_model(asked, answered) == same


def test_a_length_in_tokens_is_refused_for_a_server(tmp_path: Path) -> None:
    endpoint = Endpoint("toy", "http://127.0.0.1:9/v1", CONFIG.model_copy(update={"max_length": 9}), tmp_path / "j")
    with pytest.raises(UsageError, match="only the server has them"):
        list(endpoint.answers(["a"], frozenset()))


def test_a_refusal_is_no_answer_and_is_asked_again_but_a_question_too_long_is_unanswered(tmp_path: Path) -> None:
    def refused(text: str) -> object:
        return lambda body, _: (400, {}, text) if body["messages"][-1]["content"] == QUESTIONS[1] else OK

    with Loopback(always=refused("this word is forbidden")) as server:
        endpoint = Endpoint("m", server.openai, CONFIG, tmp_path / "journal.sqlite", Limits(attempts=1))
        with pytest.raises(TeacherError, match=r"forbidden.*nothing is scored; mend that, and the same command"):
            ask(endpoint, PROBLEMS[:3], QUESTIONS[:3], 1, tmp_path / "a.jsonl", "a")
        server.always = refused("maximum context length")
        found = ask(endpoint, PROBLEMS[:3], QUESTIONS[:3], 1, tmp_path / "a.jsonl", "a").predictions
        assert [p.truncated for p in found] == [False, True, False]
        assert server.asked[QUESTIONS[1]] == 2
        assert server.asked[QUESTIONS[0]] == 1
