"""`stillroom teach` with broken files, addresses, keys and journals: one sentence each, before anything is asked."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loopback import OK, Loopback, completion
from stillroom.cli import app
from stillroom.errors import DataError, StoreError, TeacherError, UsageError
from stillroom.teachers.asking import AnthropicConfig, Desk, LocalConfig, OpenAIConfig
from stillroom.teachers.clients import endpoint_of, key_of, read_reply
from stillroom.teachers.journal import Journal
from stillroom.teachers.limits import Limits
from stillroom.teachers.questions import Questions
from stillroom.teachers.requests import Ask, Reply
from stillroom.teachers.teaching import (
    ask_and_write,
    copy_and_write,
    parse_teacher,
    parse_temperature,
    show_prompt,
)

GOOD = [{"id": f"q{i}", "question": f"What is {i}?", "answer": str(i)} for i in range(3)]


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def written(folder: Path, content: bytes, name: str = "questions.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe" + lines(*GOOD), r"questions.jsonl:1: not UTF-8"),
        (lines({"id": "a", "question": None}), r":1: the question None is no text; mend"),
        (lines(GOOD[0]) + b"[1]\n", r":2: expected a JSON object with `question`; mend"),
        (b"[" * 100_000, r":1: expected a JSON object"),
        (b'{"question": "\\ud800 what?"}', r":1: expected a JSON object"),
        (lines({"id": [1], "question": "x?"}), r":1: `id` is neither text nor a number"),
        (lines(*GOOD, {"id": "q1", "question": "x?"}), r":4: the id 'q1' stands in line 2 too; give each its own"),
    ],
)
def test_a_broken_file_is_named_with_its_line(content: bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence):
        list(Questions(written(tmp_path, content)))


def test_an_empty_file_is_refused_and_marks_and_line_ends_of_other_systems_are_not(tmp_path: Path) -> None:
    config = OpenAIConfig(model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(DataError, match="no question to ask"):
        ask_and_write(config, Questions(written(tmp_path, b"\n")), Desk(tmp_path / "j.sqlite"), tmp_path / "cot.jsonl")
    plain = list(Questions(written(tmp_path, lines(*GOOD))))
    other = b"\xef\xbb\xbf" + lines(*GOOD).replace(b"\n", b"\r\n")
    assert list(Questions(written(tmp_path, other))) == plain


def test_a_question_of_five_megabytes_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k1")
    path = written(tmp_path, lines({"id": "a", "question": "x " * 2_500_000}))
    with Loopback() as server:
        config = OpenAIConfig(model="m", base_url=server.openai)
        assert ask_and_write(config, Questions(path), Desk(tmp_path / "j.sqlite"), tmp_path / "cot.jsonl")[:2] == (1, 0)


@pytest.mark.parametrize(
    ("place", "kind", "sentence"),
    [
        ("questions.jsonl", UsageError, "is what is read: give another file"),
        ("", UsageError, "is a folder: give a file with -o"),
        ("questions.jsonl/cot.jsonl", StoreError, r"cannot be written .* give another file with -o"),
    ],
)
def test_an_output_that_cannot_be_is_told_before_anything_is_asked(
    place: str, kind: type[Exception], sentence: str, tmp_path: Path
) -> None:
    path = written(tmp_path, lines(*GOOD))
    with Loopback() as server, pytest.raises(kind, match=sentence):
        config = OpenAIConfig(model="m", base_url=server.openai)
        ask_and_write(config, Questions(path), Desk(tmp_path / "j.sqlite"), tmp_path / place)
    assert not server.asked
    assert path.read_bytes() == lines(*GOOD)


def test_an_output_whose_disk_fails_keeps_what_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with Loopback() as server:
        config, desk = OpenAIConfig(model="m", base_url=server.openai), Desk(tmp_path / "j.sqlite")
        asked = Questions(written(tmp_path, lines(*GOOD)))
        with monkeypatch.context() as patch, pytest.raises(StoreError, match=r"No space left.*is in the journal"):
            patch.setattr("stillroom.files.os.fsync", full)
            ask_and_write(config, asked, desk, tmp_path / "cot.jsonl")
        assert ask_and_write(config, asked, desk, tmp_path / "cot.jsonl")[:2] == (3, 0)
        assert set(server.asked.values()) == {1}


def test_journals_that_cannot_be_opened_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"this is no database " * 100)
    with sqlite3.connect(tmp_path / "foreign") as foreign:
        foreign.execute("CREATE TABLE requests (a)")
    foreign.close()
    (tmp_path / "folder").mkdir()
    for place in ("text", "foreign", "folder", "text/journal.sqlite"):
        with pytest.raises(StoreError, match=r"the journal cannot be opened .*STILLROOM_STORE"):
            Journal(tmp_path / place)


def test_a_journal_that_is_read_only_is_told_of_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(tmp_path / "journal.sqlite").close()

    def connect(journal: Journal) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{journal.path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)

    monkeypatch.setattr(Journal, "_connect", connect)
    with Loopback() as server, pytest.raises(StoreError, match=r"the journal cannot be written .*readonly"):
        config = OpenAIConfig(model="m", base_url=server.openai)
        asked = Questions(written(tmp_path, lines(*GOOD)))
        ask_and_write(config, asked, Desk(tmp_path / "journal.sqlite"), tmp_path / "cot.jsonl")
    assert not server.asked


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "http//x", "ftp://x", "http://", "http://[::1", "http://x:99999/v1", "http://x:y", "http://a b"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="the base URL is no address: expected something like"):
        endpoint_of("openai", url)


@pytest.mark.parametrize("key", ["a\nb", "a b", "schlüssel", "a\x00b"[:1] + "\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(TeacherError, match="OPENAI_API_KEY holds a space, a line break") as told:
        key_of("openai", "http://127.0.0.1/v1")
    assert key not in str(told.value)
    assert repr(key)[1:-1] not in str(told.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-good\n")
    assert key_of("openai", "http://127.0.0.1/v1") == "sk-good"


@pytest.mark.parametrize(("name", "value"), [("HTTP_PROXY", "::::"), ("SSL_CERT_FILE", "/nowhere.pem")])
def test_a_setting_of_the_network_that_is_none_is_told_of(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    config = OpenAIConfig(model="m", base_url="https://127.0.0.1:9/v1")
    with pytest.raises(TeacherError, match=f"look at {name}"):
        ask_and_write(config, Questions(written(tmp_path, lines(*GOOD))), Desk(tmp_path / "j"), tmp_path / "cot.jsonl")


def test_questions_from_a_pipe_are_refused() -> None:
    with pytest.raises(DataError, match=r"is no file.* write them into one"):
        list(Questions(Path("/dev/null")))


def test_a_long_wait_that_is_asked_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stillroom.teachers.running.LONG_WAIT_S", 0.1)
    path = written(tmp_path, lines(*GOOD))
    with Loopback(faults=((429, {"Retry-After": "0.4"}, "{}"),)) as server:
        config = OpenAIConfig(model="m", base_url=server.openai)
        ask_and_write(config, Questions(path), Desk(tmp_path / "j.sqlite"), tmp_path / "cot.jsonl")
    assert "answered 429: it asks to wait 0 s; Ctrl-C stops" in capsys.readouterr().err


def test_temperatures_are_numbers_from_zero_or_unset() -> None:
    assert parse_temperature("0.5") == 0.5
    assert parse_temperature("unset") == "unset"
    for text in ("warm", "nan", "inf"):
        with pytest.raises(UsageError, match=f"--temperature {text}: expected a number, or unset"):
            parse_temperature(text)
    for wrong in (-1.0, "warm"):
        with pytest.raises(UsageError, match=r"^t: temperature: expected a number from 0 on, or unset[^\n]*$"):
            AnthropicConfig.parse({"name": "anthropic", "model": "m", "temperature": wrong}, "t")
    with pytest.raises(UsageError, match="leave it out to be greedy"):
        LocalConfig.parse({"name": "local", "folder": "x", "temperature": "unset"}, "t")


def test_half_a_character_in_a_reply_is_recorded_as_a_question_mark(tmp_path: Path) -> None:
    def half(body: dict[str, Any], head: str) -> Any:
        reply = completion(body, False)
        reply["choices"][0]["message"]["content"] = "Step 1: cut \ud83d"
        return (200, {}, json.dumps(reply))

    assert half({"messages": [{"content": "x"}], "model": "m"}, "")[0] != OK
    with Loopback(always=half) as server:
        config = OpenAIConfig(model="m", base_url=server.openai)
        asked = Questions(written(tmp_path, lines(*GOOD)))
        desk = Desk(tmp_path / "j.sqlite", Limits(attempts=1))
        assert ask_and_write(config, asked, desk, tmp_path / "cot.jsonl")[:2] == (3, 0)
    assert all(json.loads(row)["cot"] == "Step 1: cut ?" for row in (tmp_path / "cot.jsonl").read_text().splitlines())
    message = {"content": [{"type": "text", "text": "\ud83d"}], "usage": {}}
    assert read_reply("anthropic", message).text == "?"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lines({"id": "q0"}), ":1: no rationale: expected JSON with the texts id and cot"),
        (lines({"id": "q0", "cot": None}), ":1: no rationale"),
        (lines({"id": ["q0"], "cot": "x"}), ":1: no rationale"),
        (b"\xff\n", "not UTF-8"),
        (lines({"id": "zz", "cot": "x"}), "holds no rationale for these questions"),
        (lines({"id": "q0", "cot": "x"}, {"id": "q0", "cot": "y"}), ":2: the rationale of line 1 once more"),
    ],
)
def test_recorded_files_that_are_broken_are_told_of(content: bytes, sentence: str, tmp_path: Path) -> None:
    path, recorded = written(tmp_path, lines(*GOOD)), written(tmp_path, content, "recorded.jsonl")
    with pytest.raises(DataError, match=sentence):
        copy_and_write("recorded", str(recorded), Questions(path), tmp_path / "cot.jsonl")
    assert not (tmp_path / "cot.jsonl").exists()


def test_recorded_rows_keep_fields_that_nobody_knows_and_missing_ones_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": "q0", "cot": "x", "foo": {"bar": 1}}
    path, recorded = written(tmp_path, lines(*GOOD)), written(tmp_path, lines(row), "recorded.jsonl")
    assert copy_and_write("recorded", str(recorded), Questions(path), tmp_path / "cot.jsonl")[:2] == (1, 0)
    assert json.loads((tmp_path / "cot.jsonl").read_text()) == {"sample": 0, "finish": "stop", **row}
    assert "2 questions have no rationale" in capsys.readouterr().err
    with pytest.raises(UsageError, match="expected recorded:FILE"):
        parse_teacher("recorded:", {})


def test_teachers_that_are_sent_nothing_show_no_prompt_and_keep_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_STORE", str(tmp_path))
    path, out = written(tmp_path, lines(*GOOD)), written(tmp_path, b"kept", "cot.jsonl")
    for option in ("--show-prompt", "--dry-run"):
        done = CliRunner().invoke(app, ["teach", str(path), "--teacher", "human", "-o", str(out), option])
        assert isinstance(done.exception, UsageError)
        assert "the teacher human is sent nothing" in str(done.exception)
    assert out.read_bytes() == b"kept"
    with pytest.raises(DataError, match="no question to ask"):
        show_prompt(OpenAIConfig(model="m"), Questions(written(tmp_path, b"", "empty.jsonl")))
    with pytest.raises(UsageError, match="leave --batch out"):
        (tmp_path / "config.json").write_text("{}")
        local = LocalConfig(folder=str(tmp_path))
        ask_and_write(local, Questions(path), Desk(tmp_path / "j", Limits(batch=True)), tmp_path / "local.jsonl")


def teach(path: Path, server: Loopback, out: Path) -> "subprocess.Popen[str]":
    call = [sys.executable, "-m", "stillroom", "teach", str(path), "--teacher", "openai:m", "-o", str(out)]
    call += ["--base-url", server.openai, "--concurrency", "4"]
    environment = {**os.environ, "STILLROOM_STORE": str(path.parent), "OPENAI_API_KEY": "k1"}
    return subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True)


def many(folder: Path, count: int) -> Path:
    return written(folder, lines(*({"id": f"q{i}", "question": f"What is {i}?", "answer": "1"} for i in range(count))))


def test_a_question_that_stands_twice_is_asked_once(tmp_path: Path) -> None:
    path = written(tmp_path, lines(*({"id": f"q{i}", "question": "What is 1?", "answer": "1"} for i in range(6))))
    with Loopback(delay=0.05) as server:
        config = OpenAIConfig(model="m", base_url=server.openai)
        assert ask_and_write(config, Questions(path), Desk(tmp_path / "j"), tmp_path / "cot.jsonl")[:2] == (6, 0)
    assert sum(server.asked.values()) == 1


def test_replies_that_wait_for_the_disk_when_a_run_is_stopped_at_once_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = [Ask("openai", "m", "e", ({"role": "user", "content": text},), 1, 0.0, 0) for text in "ab"]
    reply = Reply("said", "stop", 1, 1)
    busy, write = threading.Event(), Journal._write

    def slow(journal: Journal, rows: Any) -> None:
        busy.set()
        time.sleep(0.05)
        write(journal, rows)

    async def stopped(journal: Journal) -> None:
        tasks = [asyncio.create_task(journal.record(asks[0], reply))]
        while not busy.is_set():
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(journal.record(asks[1], reply)))
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)

    monkeypatch.setattr(Journal, "_write", slow)
    with Journal(tmp_path / "j") as journal:
        asyncio.run(stopped(journal))
    with Journal(tmp_path / "j") as journal:
        assert all((row := journal.find(ask.key())) is not None and row.reply == reply for ask in asks)


def test_two_processes_on_one_journal_ask_nothing_twice(tmp_path: Path) -> None:
    path = many(tmp_path, 30)
    with Loopback(delay=0.1) as server:
        both = [teach(path, server, tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
        told = [process.communicate()[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], told
        assert len(server.asked) == 30
        assert set(server.asked.values()) == {1}
    assert sum("another process is asking openai:m" in text for text in told) == 1
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_ctrl_c_twice_stops_at_once_without_a_traceback(tmp_path: Path) -> None:
    path = many(tmp_path, 40)
    with Loopback(delay=0.1) as server:
        process = teach(path, server, tmp_path / "cot.jsonl")
        while sum(server.answered.values()) < 4:
            time.sleep(0.01)
        server.delay = 30.0
        while server.at_work < 4:
            time.sleep(0.01)
        time.sleep(0.3)  # those that the short delay let through are answered
        process.send_signal(signal.SIGINT)
        while "stopping" not in (first := process.stderr.readline()):  # type: ignore[union-attr]
            assert first
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=10)[1]
    assert process.returncode == 130
    assert "stopped at once" in told
    assert "Traceback" not in told
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert sum(row["requests"] for row in journal.summary()) == sum(server.answered.values()) >= 4
