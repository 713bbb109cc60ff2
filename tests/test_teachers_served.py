"""A real model behind a real server: a student of the small run answers in OpenAI's language, and teaches."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stillroom.decoding import decode
from stillroom.files import read_lines, write_lines
from stillroom.records import Problem, Rationale
from stillroom.store import Store
from stillroom.students import Student, load


@contextmanager
def served(student: Student) -> Iterator[str]:
    """The base URL of a server that answers each chat with the student's own completion of the last message."""
    turn = threading.Lock()
    ids = {"pad": int(student.tokenizer.pad_token_id), "ends": student.stops}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = student.prompt(body["messages"][-1]["content"])
            with turn:
                (done,) = decode(student.model, [prompt], body["max_tokens"], **ids)
            text = student.tokenizer.decode(done.ids, skip_special_tokens=True)
            choice = {"index": 0, "message": {"role": "assistant", "content": text},
                      "finish_reason": "stop" if done.stopped else "length"}  # fmt: skip
            usage = {"prompt_tokens": len(prompt), "completion_tokens": len(done.ids), "total_tokens": 0}
            reply = json.dumps({"id": "c", "object": "chat.completion", "created": 0, "model": body["model"],
                                "choices": [choice], "usage": usage}).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def stillroom(store: Path, *arguments: str) -> str:
    environment = {**os.environ, "STILLROOM_STORE": str(store), "OPENAI_API_KEY": "none-needed"}
    call = [sys.executable, "-m", "stillroom", *arguments]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_served_model_teaches_on_the_command_line_and_in_a_recipe(small_store: Path, tmp_path: Path) -> None:
    store = Store(small_store)
    folders = {m.name: store.folder(m.stage, m.key) for m in store.manifests()}
    asked = read_lines(folders["problems"] / "test.jsonl", Problem)[:4]
    write_lines(tmp_path / "questions.jsonl", asked)
    with served(load(folders["normal"])) as url:
        cot = tmp_path / "cot.jsonl"
        model = ["--teacher", "openai:normal", "--base-url", url, "--max-new-tokens", "48"]
        stillroom(tmp_path / "store", "teach", str(tmp_path / "questions.jsonl"), *model, "-o", str(cot))
        rows = [json.loads(line) for line in cot.read_text().splitlines()]
        assert [row["id"] for row in rows] == [p.id for p in asked]
        assert all(row["cot"] and row["finish"] in ("stop", "length") for row in rows)
        (summary,) = map(json.loads, stillroom(tmp_path / "store", "show", "journal", "--json").splitlines())
        assert (summary["requests"], summary["status"], summary["usd"]) == (4, "recorded", None)

        teacher = f"teacher={{name: openai, model: normal, base_url: '{url}', max_new_tokens: 24, granularity: 1}}"
        small = ["task.train=6", "task.narrated=6", "settings.teach.concurrency=2", "gates.correct=false"]
        folder = stillroom(tmp_path / "store", "run", "abacus-small", teacher, *small, "--until", "rationales").strip()
        written = read_lines(Path(folder) / "rationales.jsonl", Rationale)
        assert {r.teacher for r in written} == {"openai"}
        assert len(written) == len(read_lines(next(Path(folder).parents[1].glob("problems/*/train.jsonl")), Problem))
