"""Laws of asking, against a provider on loopback that stumbles: nothing is lost, nothing is paid for twice."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from loopback import DROP, HALF, HANG, OK, Loopback, faults_of
from stillroom.errors import TeacherError, UsageError
from stillroom.teachers import limits
from stillroom.teachers.asking import AnthropicConfig, Desk, OpenAIConfig
from stillroom.teachers.clients import ApiClient, endpoint_of
from stillroom.teachers.journal import Journal
from stillroom.teachers.limits import Limits
from stillroom.teachers.questions import Questions
from stillroom.teachers.requests import Ask, Transient
from stillroom.teachers.teaching import ask_and_write, finish, forecast

SECRET = "sk-the-secret-key"
GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k_train.jsonl"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setattr(limits, "FIRST_WAIT_S", 0.01)


def questions(folder: Path, count: int = 20) -> Questions:
    path = folder / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Questions(path)


def config_for(name: str, server: Loopback, **more: object) -> OpenAIConfig | AnthropicConfig:
    if name == "openai":
        return OpenAIConfig(model="m", base_url=server.openai, **more)  # type: ignore[arg-type]
    return AnthropicConfig(model="m", base_url=server.anthropic, **more)  # type: ignore[arg-type]


def desk(folder: Path, **settings: object) -> Desk:
    return Desk(folder / "journal.sqlite", Limits(**{"timeout_s": 1.0, "poll_s": 0.01, **settings}))  # type: ignore[arg-type]


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_every_fault_is_survived_and_no_key_is_written(name: str, tmp_path: Path) -> None:
    asked = questions(tmp_path)
    with Loopback(faults=faults_of(name)) as server:
        outcome = ask_and_write(config_for(name, server), asked, desk(tmp_path, concurrency=4), tmp_path / "cot.jsonl")
        assert outcome[:2] == (20, 0)
        assert sum(server.asked.values()) == 28
        assert max(server.answered.values()) == 1
        assert server.most_at_work <= 4
        before = (tmp_path / "cot.jsonl").read_bytes()
        ask_and_write(config_for(name, server), asked, desk(tmp_path, concurrency=1), tmp_path / "cot.jsonl")
        assert sum(server.asked.values()) == 28
        assert any(SECRET in head for head in server.headers)
    assert (tmp_path / "cot.jsonl").read_bytes() == before
    assert SECRET.encode() not in everything(tmp_path)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_batches_are_recorded_and_nothing_is_handed_in_twice(name: str, tmp_path: Path) -> None:
    asked = questions(tmp_path)
    with Loopback() as server:
        config = config_for(name, server)
        ask_and_write(config, questions(tmp_path, 5), desk(tmp_path), tmp_path / "cot.jsonl")
        asked = questions(tmp_path)
        outcome = ask_and_write(config, asked, desk(tmp_path, batch=True), tmp_path / "cot.jsonl")
        assert outcome[:2] == (20, 0)
        assert set(server.asked.values()) == {1}
        assert len(server.batches) == 1


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_batch_whose_id_a_kill_lost_is_found_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = questions(tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with Loopback() as server:
        config = config_for(name, server)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Journal, "name_batch", killed)
            ask_and_write(config, asked, desk(tmp_path, batch=True), tmp_path / "cot.jsonl")
        assert len(server.batches) == 1
        ask_and_write(config, asked, desk(tmp_path, batch=True), tmp_path / "cot.jsonl")
        assert len(server.batches) == 1
    assert len((tmp_path / "cot.jsonl").read_text().splitlines()) == 20


ERRORS = {
    "wrong key": (401, f'{{"error": {{"message": "Incorrect API key provided: {SECRET}"}}}}', "put a valid one into"),
    "unknown model": (404, '{"error": {"message": "no such model"}}', "knows no model 'm'"),
    "no credit": (429, '{"error": {"code": "insufficient_quota", "message": "insufficient_quota"}}', "no credit left"),
}


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_asked_is_told_in_a_sentence(name: str, case: str, tmp_path: Path) -> None:
    status, body, sentence = ERRORS[case]
    with Loopback(always=lambda *_: (status, {}, body)) as server, pytest.raises(TeacherError, match=sentence) as told:
        ask_and_write(config_for(name, server), questions(tmp_path), desk(tmp_path), tmp_path / "cot.jsonl")
    assert SECRET not in str(told.value)
    assert SECRET.encode() not in everything(tmp_path)
    assert not (tmp_path / "cot.jsonl").exists()


def test_no_network(tmp_path: Path) -> None:
    config = OpenAIConfig(model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(TeacherError, match=r"cannot be reached.*look at the network"):
        ask_and_write(config, questions(tmp_path), desk(tmp_path, attempts=2), tmp_path / "cot.jsonl")


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("fault", "said", "billed"),
    [
        ("closed", "cannot be reached, or hung up (ClientConnectorError", False),
        (DROP, "cannot be reached, or hung up (ServerDisconnectedError", True),
        (HALF, "cannot be reached, or hung up (ClientPayloadError", True),
        (HANG, "did not answer in time", True),
    ],
)
def test_what_befell_a_request_is_told_and_only_what_never_left_is_not_billed(name, fault, said, billed) -> None:
    with Loopback(faults=(fault,)) as server:
        url = server.openai if name == "openai" else server.anthropic
        endpoint = url.replace(str(server.port), "9") if fault == "closed" else url

        async def asked() -> None:
            client = ApiClient(name, endpoint, timeout=0.3)
            try:
                await client.ask(Ask(name, "m", endpoint, ({"role": "user", "content": "?"},), 5, None, 0))
            finally:
                await client.close()

        with pytest.raises(Transient, match=re.escape(said)) as told:
            asyncio.run(asked())
        assert told.value.billed is billed


@pytest.mark.parametrize("status", [101, 304, 407])
def test_what_stands_between_here_and_the_service_refuses_no_question_for_good(status: int, tmp_path: Path) -> None:
    asked = questions(tmp_path, 2)
    with Loopback(always=lambda body, head: (status, {}, "")) as server:
        with pytest.raises(TeacherError, match=r"look at the base URL and at HTTP_PROXY|look at the network"):
            ask_and_write(config_for("openai", server), asked, desk(tmp_path, attempts=1), tmp_path / "cot.jsonl")
        server.always = None
        outcome = ask_and_write(config_for("openai", server), asked, desk(tmp_path), tmp_path / "cot.jsonl")
    assert (outcome.written, outcome.failed) == (2, 0)


@pytest.mark.parametrize(
    ("said", "word"),
    [("please see the billing page", "billing"), ('{"detail": [{"input": {"temperature": 0.0}}]}', "detail")],
)
def test_a_refusal_in_words_of_its_own_is_told_and_stops_nothing(said: str, word: str, tmp_path: Path) -> None:
    with Loopback(always=lambda *_: (422, {}, said)) as server:
        asked = questions(tmp_path, 2)
        outcome = ask_and_write(config_for("openai", server), asked, desk(tmp_path), tmp_path / "cot.jsonl")
    assert (outcome.written, outcome.failed) == (0, 2)
    assert word in (tmp_path / "cot.failed.jsonl").read_text()


@pytest.mark.parametrize("key", ["a", "m", "answer", "none"])
def test_a_key_that_is_a_word_of_the_reply_changes_no_reply(key: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with Loopback() as server:
        ask_and_write(config_for("openai", server), questions(tmp_path, 2), desk(tmp_path), tmp_path / "cot.jsonl")
    assert "[key]" not in (tmp_path / "cot.jsonl").read_text()


@pytest.mark.parametrize(
    "text", ['{"choices": ' + "9" * 5000 + "}", "[" * 100_000, '{"usage": {"prompt_tokens": true}}']
)
def test_what_no_json_reader_takes_is_a_passing_fault(text: str, tmp_path: Path) -> None:
    with Loopback(faults=((200, {"content-type": "application/json"}, text),)) as server:
        outcome = ask_and_write(
            config_for("openai", server), questions(tmp_path, 1), desk(tmp_path), tmp_path / "c.jsonl"
        )
    assert (outcome.written, outcome.failed) == (1, 0)


def test_sigterm_lets_what_is_in_flight_finish_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    path = questions(tmp_path, 12).path
    with Loopback(delay=1.0) as server:
        call = [
            sys.executable,
            "-m",
            "stillroom",
            "teach",
            str(path),
            "--teacher",
            "openai:m",
            "--base-url",
            server.openai,
        ]
        call += ["--concurrency", "3", "-o", str(tmp_path / "cot.jsonl")]
        environment = {**os.environ, "STILLROOM_STORE": str(tmp_path / "store")}
        with subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True) as process:
            while server.at_work < 3:
                time.sleep(0.05)
            process.terminate()
            assert process.stderr is not None
            said = process.stderr.read()
        assert process.returncode == 75, said
        assert "stopped by SIGTERM: 3 answered" in said
        assert "Traceback" not in said
        server.delay = 0.0
        subprocess.run(call, env=environment, check=True, capture_output=True)
    assert set(server.asked.values()) == {1}


def test_a_file_that_is_read_is_not_where_failures_go(tmp_path: Path) -> None:
    asked = Questions(questions(tmp_path, 1).path.rename(tmp_path / "cot.failed.jsonl"))
    with pytest.raises(UsageError, match=r"cot\.failed\.jsonl beside it is what is read"):
        ask_and_write(
            OpenAIConfig(model="m", base_url="http://127.0.0.1:9/v1"), asked, desk(tmp_path), tmp_path / "cot.jsonl"
        )
    assert asked.path.exists()


@pytest.mark.parametrize("url", ["http://a..b/v1", "http://./v1", f"http://{'a' * 64}.example/v1"])
def test_a_host_that_no_name_server_takes_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="the base URL is no address"):
        endpoint_of("openai", url)


def test_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(TeacherError, match="OPENAI_API_KEY is not set"):
        ask_and_write(OpenAIConfig(model="m"), questions(tmp_path), desk(tmp_path), tmp_path / "cot.jsonl")


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_question_that_is_too_long_is_kept_with_its_reason_beside_the_others(name: str, tmp_path: Path) -> None:
    def too_long(body: dict[str, object], head: str) -> object:
        told = {"code": "context_length_exceeded", "message": f"maximum context length is 9, key {SECRET}"}
        reply = json.dumps({"error": told})
        return (400, {}, reply) if "What is 7 " in str(body) else "ok"

    with Loopback(always=too_long) as server:
        config = config_for(name, server)
        outcome = ask_and_write(config, questions(tmp_path), desk(tmp_path), tmp_path / "cot.jsonl")
        assert outcome[:2] == (19, 1)
        ask_and_write(config, questions(tmp_path), desk(tmp_path), tmp_path / "cot.jsonl")
        assert sum(server.asked.values()) == 20
        with pytest.raises(TeacherError, match="does not fit into the model's context"):
            finish(outcome, tmp_path / "cot.jsonl")
    (row,) = map(json.loads, (tmp_path / "cot.failed.jsonl").read_text().splitlines())
    assert row["id"] == "q7"
    assert SECRET.encode() not in everything(tmp_path)


def test_a_budget_stops_before_it_is_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback() as server:
        monkeypatch.setitem(limits.__dict__, "DATE", limits.DATE)
        monkeypatch.setattr("stillroom.teachers.prices.HOSTS", {"openai": server.openai})
        config = OpenAIConfig(model="gpt-4o", base_url=server.openai, max_new_tokens=20)
        with pytest.raises(TeacherError, match="before --max-usd was passed"):
            ask_and_write(config, questions(tmp_path), desk(tmp_path, max_usd=0.006), tmp_path / "cot.jsonl")
        with Journal(tmp_path / "journal.sqlite") as journal:
            (row,) = journal.summary()
        spent = row["input_tokens"] * 2.5e-6 + row["output_tokens"] * 10e-6
        assert 0.0003 < spent <= 0.006
        text, found = forecast(config, questions(tmp_path), desk(tmp_path))
        assert found.spent_usd == pytest.approx(spent)
        assert "recorded" in text
        ask_and_write(config, questions(tmp_path), desk(tmp_path, max_usd=1.0), tmp_path / "cot.jsonl")
        assert set(server.asked.values()) == {1}


def test_an_unknown_price_refuses_a_budget_until_it_is_given(tmp_path: Path) -> None:
    with Loopback() as server:
        config = config_for("openai", server, max_new_tokens=20)
        how = r"table of 20\d\d-\d\d-\d\d, so --max-usd cannot be kept: give it with --price IN,OUT .US dollars"
        with pytest.raises(TeacherError, match=how):
            ask_and_write(config, questions(tmp_path), desk(tmp_path, max_usd=1.0), tmp_path / "c")
        assert not server.asked
        price = (2.0, 10.0)  # 50 tokens in and 20 out are 0.0003 USD
        with pytest.raises(TeacherError, match="before --max-usd was passed"):
            ask_and_write(config, questions(tmp_path), desk(tmp_path, max_usd=0.006, price=price), tmp_path / "c")
        assert 0 < len(server.asked) < 20
        ask_and_write(config, questions(tmp_path), desk(tmp_path, max_usd=1.0, price=price), tmp_path / "c")
        assert "0.0060 spent (your price)" in forecast(config, questions(tmp_path), desk(tmp_path, price=price))[0]
    assert {json.loads(line)["usd"] for line in (tmp_path / "c").read_text().splitlines()} == {0.0003}


def takes_no_temperature(body: dict[str, Any], head: str) -> Any:
    """Anthropic as of API version 2026-10-21, and of models that refuse a temperature under the older one too."""
    if "temperature" not in body:
        return OK
    old = "anthropic-version: 2023-06-01" in head
    why = "`temperature` is deprecated for this model." if old else "temperature: Extra inputs are not permitted"
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": why}}
    return OK if old and body["model"] == "old" else (400, {}, json.dumps(error))


def test_anthropic_is_greedy_where_the_model_takes_a_temperature(tmp_path: Path) -> None:
    bodies = []

    def spy(body: dict[str, Any], head: str) -> Any:
        bodies.append(body.get("temperature"))
        return takes_no_temperature(body, head)

    with Loopback(always=spy) as server:
        old = AnthropicConfig(model="old", base_url=server.anthropic)
        assert ask_and_write(old, questions(tmp_path), desk(tmp_path), tmp_path / "cot.jsonl")[:2] == (20, 0)
        assert set(bodies) == {0.0}
        new = old.model_copy(update={"model": "new"})
        with pytest.raises(TeacherError, match=r"temperature for model 'new'.*run with --temperature unset"):
            ask_and_write(new, questions(tmp_path), desk(tmp_path), tmp_path / "cot.jsonl")
        bodies.clear()
        unset = AnthropicConfig.parse({**new.model_dump(), "temperature": "unset"}, "teacher")
        assert ask_and_write(unset, questions(tmp_path), desk(tmp_path), tmp_path / "cot.jsonl")[:2] == (20, 0)
        assert set(bodies) == {None}


def test_a_refusal_of_the_temperature_fails_no_question(tmp_path: Path) -> None:
    why = (
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
    )
    refusal = (400, {}, json.dumps({"error": {"message": why, "param": "temperature"}}))
    with Loopback(always=lambda body, head: refusal if "temperature" in body else OK) as server:
        config = OpenAIConfig(model="m", base_url=server.openai)
        with pytest.raises(TeacherError, match="--temperature unset"):
            ask_and_write(config, questions(tmp_path), desk(tmp_path), tmp_path / "cot.jsonl")
        with Journal(tmp_path / "journal.sqlite") as journal:
            assert not list(journal.summary())
        unset = config.model_copy(update={"temperature": "unset"})
        assert ask_and_write(unset, questions(tmp_path), desk(tmp_path), tmp_path / "cot.jsonl")[:2] == (20, 0)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as told:
        OpenAIConfig.parse({"name": "openai", "model": "m", "base_url": "http://me:hunter2@host/v1"}, "teacher")
    assert "hunter2" not in str(told.value)


def teach(asked: Path, port: int, folder: Path, *more: str) -> "subprocess.Popen[str]":
    call = [sys.executable, "-m", "stillroom", "teach", str(asked), "--teacher", "openai:m", "-n", "200", *more]
    call += ["--base-url", f"http://127.0.0.1:{port}/v1", "-o", str(folder / "cot.jsonl")]
    environment = {**os.environ, "STILLROOM_STORE": str(folder), "OPENAI_API_KEY": SECRET}
    return subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True)


def test_killed_at_random_moments_nothing_recorded_is_asked_again(tmp_path: Path) -> None:
    path = GSM8K if GSM8K.exists() else questions(tmp_path, 200).path
    rng = random.Random(0)
    with Loopback(delay=0.1) as server:
        seen: set[str] = set()
        counts: Counter[str] = Counter()
        kills = 0
        for _ in range(3):
            process = teach(path, server.port, tmp_path, "--concurrency", "8")
            before = sum(server.asked.values())
            while sum(server.asked.values()) <= before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.1, 0.7))
            process.kill()
            process.communicate()
            kills += 1
            with Journal(tmp_path / "journal.sqlite") as journal:
                recorded = {
                    json.loads(m)[-1]["content"] for (m,) in journal._reader.execute("SELECT messages FROM requests")
                }
            assert seen <= recorded
            again = {question for question in seen if server.asked[question] > counts[question]}
            assert not again
            seen, counts = recorded, server.asked.copy()
        assert 0 < len(seen) < 200
        last = teach(path, server.port, tmp_path, "--concurrency", "32")
        assert last.communicate()[1] is not None and last.returncode == 0
        assert all(server.asked[question] == counts[question] for question in seen)
        assert len(server.asked) == 200
        assert sum(server.asked.values()) <= 200 + kills * 8
        calm = tmp_path / "calm"
        undisturbed = teach(path, server.port, calm, "--concurrency", "32")
        undisturbed.communicate()
    assert (calm / "cot.jsonl").read_bytes() == (tmp_path / "cot.jsonl").read_bytes()


def test_ctrl_c_finishes_what_is_in_flight_and_says_how_to_go_on(tmp_path: Path) -> None:
    asked = questions(tmp_path, 200)
    with Loopback(delay=0.2) as server:
        process = teach(asked.path, server.port, tmp_path)
        while sum(server.asked.values()) < 20:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1]
        assert process.returncode == 130, told
        assert "run the same command to go on" in told
        with Journal(tmp_path / "journal.sqlite") as journal:
            (row,) = journal.summary()
        assert row["requests"] == sum(server.asked.values()) < 200
