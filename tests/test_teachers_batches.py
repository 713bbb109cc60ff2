"""Batches that end badly: what was answered is kept, what was refused stands in the journal, the rest asked again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopback import Loopback
from stillroom.errors import TeacherError
from stillroom.teachers import batches, limits
from stillroom.teachers.asking import AnthropicConfig, Desk, OpenAIConfig
from stillroom.teachers.journal import Journal
from stillroom.teachers.limits import Limits
from stillroom.teachers.teaching import Outcome, Questions, ask_and_write, finish

BOTH = pytest.mark.parametrize("name", ["openai", "anthropic"])
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k-the-secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k-the-secret")
    monkeypatch.setattr(limits, "FIRST_WAIT_S", 0.01)


def questions(folder: Path, count: int = 6) -> Path:
    path = folder / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def collect(name: str, server: Loopback, folder: Path, **settings: Any) -> Outcome:
    url = server.openai if name == "openai" else server.anthropic
    config = (OpenAIConfig if name == "openai" else AnthropicConfig)(model="m", base_url=url)
    desk = Desk(folder / "journal.sqlite", Limits(batch=True, poll_s=0.01, timeout_s=5.0, **settings))
    return ask_and_write(config, Questions(folder / "questions.jsonl"), desk, folder / "cot.jsonl")


def journal(folder: Path) -> dict[str, int]:
    with Journal(folder / "journal.sqlite") as rows:
        return {row["status"]: row["requests"] for row in rows.summary()}


def failures(folder: Path) -> dict[str, str]:
    return {r["id"]: r["reason"] for r in map(json.loads, (folder / "cot.failed.jsonl").read_text().splitlines())}


def ending(row: Row, fate: str) -> Row:
    """The row as either provider writes it for a request that was refused, or that the batch did not come to."""
    if "result" in row:
        error = {"type": "error", "error": {"type": fate, "message": "prompt: bad"}}
        missed = fate in ("expired", "canceled")
        return {**row, "result": {"type": fate} if missed else {"type": "errored", "error": error}}
    if fate == "invalid_request_error":
        return {**row, "response": {"status_code": 400, "body": {"error": {"message": "prompt: bad"}}}}
    if fate == "api_error":
        return {**row, "response": {"status_code": 500, "body": {"error": {"message": "oops"}}}}
    return {**row, "response": None, "error": {"code": f"batch_{fate}", "message": "too late"}}


def fated(fates: dict[int, str]) -> Callable[[Row, list[Row]], None]:
    def end(shown: Row, rows: list[Row]) -> None:
        for at, fate in fates.items():
            rows[at] = ending(rows[at], fate)
        if "status" in shown and "expired" in fates.values():
            shown["status"] = "expired"

    return end


@BOTH
def test_single_rows_that_fail_are_told_apart_and_the_others_kept(name: str, tmp_path: Path) -> None:
    questions(tmp_path)
    with Loopback() as server:
        server.end = fated({1: "invalid_request_error", 2: "canceled", 4: "api_error"})
        outcome = collect(name, server, tmp_path)
        with pytest.raises(TeacherError, match="3 of 6 requests gave no rationale"):
            finish(outcome, tmp_path / "cot.jsonl")
        assert journal(tmp_path) == {"recorded": 3, "failed": 1}
        told = failures(tmp_path)
        assert sorted(told) == ["q1", "q2", "q4"]
        assert "prompt: bad" in told["q1"]
        assert "no answer yet" in told["q2"]
        assert "no answer yet" in told["q4"]
        server.end = lambda shown, rows: None
        assert collect(name, server, tmp_path)[:2] == (5, 1)
        assert sorted(server.asked.values()) == [1, 1, 1, 1, 2, 2]
        assert failures(tmp_path) == {"q1": told["q1"]}
        assert collect(name, server, tmp_path, retry_failed=True)[:2] == (6, 0)
        assert not (tmp_path / "cot.failed.jsonl").exists()


@BOTH
def test_what_a_batch_answered_before_it_expired_is_kept(name: str, tmp_path: Path) -> None:
    questions(tmp_path)
    with Loopback() as server:
        server.end = fated({3: "expired", 4: "expired", 5: "expired"})
        assert collect(name, server, tmp_path)[:2] == (3, 3)
        assert all("expired" in reason for reason in failures(tmp_path).values())
        server.end = lambda shown, rows: None
        assert collect(name, server, tmp_path)[:2] == (6, 0)
        assert [server.asked[f"What is {i} + {i}?"] for i in range(6)] == [1, 1, 1, 2, 2, 2]


@BOTH
def test_a_batch_of_which_nothing_is_answered_is_told_and_kept(name: str, tmp_path: Path) -> None:
    questions(tmp_path)

    def end(shown: Row, rows: list[Row]) -> None:
        if name == "anthropic":
            return fated(dict.fromkeys(range(6), "invalid_request_error"))(shown, rows)
        errors = [{"code": "invalid_json_line", "line": 2, "message": "prompt: bad k-the-secret", "param": None}]
        shown.update(status="failed", errors={"object": "list", "data": errors})
        return rows.clear()

    with Loopback() as server:
        server.end = end
        with pytest.raises(TeacherError, match=r"every request was refused.*prompt: bad.*--retry-failed") as told:
            collect(name, server, tmp_path)
        assert "k-the-secret" not in str(told.value)
        assert journal(tmp_path) == {"failed": 6}
        assert collect(name, server, tmp_path)[:2] == (0, 6)
        assert len(server.batches) == 1
        server.end = lambda shown, rows: None
        assert collect(name, server, tmp_path, retry_failed=True)[:2] == (6, 0)


def test_a_batch_refused_for_want_of_room_is_handed_in_again(tmp_path: Path) -> None:
    questions(tmp_path)

    def end(shown: Row, rows: list[Row]) -> None:
        errors = [{"code": "token_limit_exceeded", "line": None, "message": "Enqueued token limit reached"}]
        shown.update(status="failed", errors={"object": "list", "data": errors})
        rows.clear()

    with Loopback() as server:
        server.end = end
        assert collect("openai", server, tmp_path)[:2] == (0, 6)
        assert all("Enqueued token limit" in reason for reason in failures(tmp_path).values())
        server.end = lambda shown, rows: None
        assert collect("openai", server, tmp_path)[:2] == (6, 0)


@BOTH
def test_rows_in_any_order_twice_and_of_strangers_are_filed_where_they_belong(name: str, tmp_path: Path) -> None:
    questions(tmp_path)

    def end(shown: Row, rows: list[Row]) -> None:
        rows.reverse()
        rows += [rows[0], {**rows[1], "custom_id": "somebody-else"}]
        body = rows[2]["result"]["message"] if name == "anthropic" else rows[2]["response"]["body"]
        part = body["content"][0] if name == "anthropic" else body["choices"][0]["message"]
        part["text" if name == "anthropic" else "content"] += "\u2028\u0085 and so on"

    with Loopback() as server:
        server.end = end
        assert collect(name, server, tmp_path)[:2] == (6, 0)
    rows = [json.loads(line) for line in (tmp_path / "cot.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["id"] for row in rows] == [f"q{i}" for i in range(6)]
    assert all(f"What is {i} + {i}?"[:20] in row["cot"] for i, row in enumerate(rows))
    assert rows[3]["cot"].endswith("\u2028\u0085 and so on")
    assert journal(tmp_path) == {"recorded": 6}


@BOTH
def test_a_question_that_stands_twice_is_handed_in_once_and_large_batches_are_cut(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = questions(tmp_path)
    path.write_text(path.read_text() + json.dumps({"id": "again", "question": "What is 0 + 0?", "answer": "0"}) + "\n")
    monkeypatch.setattr(batches, "BYTES", 2000)
    with Loopback() as server:
        assert collect(name, server, tmp_path)[:2] == (7, 0)
        assert set(server.asked.values()) == {1}
        assert len(server.batches) > 1


@BOTH
def test_a_batch_that_the_provider_forgot_is_given_up_on_request(name: str, tmp_path: Path) -> None:
    questions(tmp_path)
    with Loopback() as server:
        server.looks_needed = 99
        with pytest.raises(KeyboardInterrupt):
            _stopped_while_polling(name, server, tmp_path)
        server.batches.clear()
        with pytest.raises(TeacherError, match=r"knows no batch batch-0.*--retry-failed"):
            collect(name, server, tmp_path)
        server.looks_needed = 2
        assert collect(name, server, tmp_path, retry_failed=True)[:2] == (6, 0)


def _stopped_while_polling(name: str, server: Loopback, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "pause", _interrupt)
        collect(name, server, folder)


async def _interrupt(*_: object) -> bool:
    raise KeyboardInterrupt


@BOTH
def test_killed_while_it_polls_it_polls_the_same_batch_again(name: str, tmp_path: Path) -> None:
    path = questions(tmp_path)
    with Loopback() as server:
        server.looks_needed = 10**9
        url = server.openai if name == "openai" else server.anthropic
        call = [sys.executable, "-m", "stillroom", "teach", str(path), "--teacher", f"{name}:m", "--base-url", url]
        call += ["--batch", "-o", str(tmp_path / "cot.jsonl")]
        environment = {**os.environ, "STILLROOM_STORE": str(tmp_path)}
        for looks in (1, 2):
            process = subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 60
            while not server.batches or server.batches["batch-0"]["looks"] < looks:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
        server.looks_needed = 3
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert list(server.batches) == ["batch-0"]
        assert set(server.asked.values()) == {1}
    assert len((tmp_path / "cot.jsonl").read_text().splitlines()) == 6
