"""`transformers serve`, a server that others wrote, on a scratch model: it teaches, and says what the model says."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from toys import llama, tokenizer

MISSING = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
START_S = 120.0
CHAT = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "model"
    words = tokenizer()
    words.chat_template = CHAT
    model = llama(len(words))
    model.config.max_position_embeddings = 2048  # the prompt with its worked example is long
    model.save_pretrained(path)
    words.save_pretrained(path)
    return path


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    """The base URL of a server of this folder's model, which is gone when the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--host", "127.0.0.1"]
    call += ["--port", str(port), "--device", "cpu"]
    with log.open("wb") as out:
        server = subprocess.Popen(call, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not healthy(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def teach(store: Path, questions: Path, teacher: str, *more: str) -> list[dict[str, Any]]:
    out = store / "cot.jsonl"
    call = [sys.executable, "-m", "stillroom", "teach", str(questions), "--teacher", teacher, "-o", str(out)]
    call += ["--max-new-tokens", "12", *more]
    environment = {**os.environ, "STILLROOM_STORE": str(store)}
    environment.pop("OPENAI_API_KEY", None)
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(bool(MISSING), reason=f"`transformers serve` cannot start: {' and '.join(MISSING)} not installed")
def test_a_served_model_says_what_it_says_in_this_process_and_is_asked_once(folder: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"Ann has {i} eggs and gets 1 .", "answer": str(i + 1)} for i in range(5)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = tmp_path / "server.log"
    with serving(folder, log) as url:
        served = teach(tmp_path / "a", questions, f"openai:{folder}", "--base-url", url)
        asked = log.read_text().count("POST /v1/chat/completions")
        assert asked == 5
        assert teach(tmp_path / "a", questions, f"openai:{folder}", "--base-url", url) == served
        assert log.read_text().count("POST /v1/chat/completions") == asked
    here = teach(tmp_path / "b", questions, f"local:{folder}", "--device", "cpu")
    told = ("id", "cot", "finish")  # not the tokens: the server counts the one that ends a text
    assert [[row[k] for k in told] for row in served] == [[row[k] for k in told] for row in here]
    assert len({row["cot"] for row in served}) > 1
    show = [sys.executable, "-m", "stillroom", "show", "journal", "--json"]
    environment = {**os.environ, "STILLROOM_STORE": str(tmp_path / "a")}
    (summary,) = subprocess.run(show, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    row = json.loads(summary)
    assert (row["requests"], row["status"], row["usd"]) == (5, "recorded", None)
    assert row["output_tokens"] == sum(r["output_tokens"] for r in served)
