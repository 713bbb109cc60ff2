"""A provider on loopback: speaks to both clients, counts what it is asked, and stumbles on purpose.

As a program (`python loopback.py SECONDS`) it prints its port and answers after that many seconds.
"""

import asyncio
import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

OK, HANG, DROP, HALF, GARBAGE, SHAPELESS = "ok", "hang", "drop", "half", "garbage", "shapeless"
Fault = tuple[int, dict[str, str], str]


def text_of(body: dict[str, Any]) -> str:
    """A reply that depends on the question alone."""
    question = str(body["messages"][-1]["content"])
    number = int(hashlib.sha256(question.encode()).hexdigest()[:6], 16)
    return f"Step 1: look at {question[:20]!r}.\nThe answer is {number}."


def completion(body: dict[str, Any], anthropic: bool) -> dict[str, Any]:
    if anthropic:
        return {
            "id": "m", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn",
            "stop_sequence": None, "content": [{"type": "text", "text": text_of(body)}],
            "usage": {"input_tokens": 50, "output_tokens": 20},
        }  # fmt: skip
    message = {"role": "assistant", "content": text_of(body)}
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
    }  # fmt: skip


class Loopback:
    """`faults` are used up one a request, whoever asks; after them every request is answered."""

    def __init__(self, delay: float = 0.0, faults: tuple[Any, ...] = (), always: Any = None) -> None:
        self.delay, self.faults, self.always = delay, iter(faults), always
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.headers: list[str] = []
        self.batches: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.looks_needed = 2
        self.end: Callable[[dict[str, Any], list[dict[str, Any]]], Any] = lambda shown, rows: None
        """Changes how a batch ends: what is shown of it, and its result rows."""
        self.at_work = self.most_at_work = 0
        self.routes: dict[str, Callable[[str, str, bytes], Any]] = {}
        self.port = 0
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> "Loopback":
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _serve(self, ready: threading.Event) -> None:
        self._loop.run_until_complete(self.run(lambda _: ready.set()))
        self._loop.close()

    async def run(self, ready: Callable[[int], Any]) -> None:
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        ready(self.port)
        await self._done.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def openai(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        length = next((int(r.split(":")[1]) for r in head.split("\r\n") if r.lower().startswith("content-length")), 0)
        raw = await reader.readexactly(length)
        self.headers.append(head) if len(self.headers) < 1000 else None
        if path.endswith(("/chat/completions", "/messages")):
            return await self._complete(path, head, json.loads(raw), writer)
        found = self.batch_route(method, path.partition("?")[0], raw)
        content = found if isinstance(found, bytes) else json.dumps(found).encode()
        writer.write(http(200 if found is not None else 404, content))
        await writer.drain()
        return True

    async def _complete(self, path: str, head: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        question = body["messages"][-1]["content"]
        self.asked[question] += 1
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.at_work -= 1
        fault = self.always(body, head) if self.always else next(self.faults, OK)
        content = json.dumps(completion(body, path.endswith("/messages"))).encode()
        if isinstance(fault, tuple):
            status, extra, text = fault
            writer.write(http(status, text.encode(), extra))
        elif fault == HANG:
            await asyncio.sleep(60)
        elif fault == DROP:
            return False
        elif fault == HALF:
            writer.write(http(200, content)[: -len(content) // 2])
            await writer.drain()
            return False
        elif fault in (GARBAGE, SHAPELESS):
            writer.write(http(200, b'{"id": 1,,' if fault == GARBAGE else b"{}"))
        else:
            self.answered[question] += 1
            writer.write(http(200, content))
        await writer.drain()
        return True

    def batch_route(self, method: str, path: str, raw: bytes) -> Any:
        """Files and batches of OpenAI, batches of Anthropic; a batch ends after `looks_needed` looks."""
        part = path.rstrip("/").split("/")
        if path.endswith("/files") and method == "POST":
            name = f"file-{len(self.files)}"
            self.files[name] = raw
            return {"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "x", "purpose": "batch"}
        if path.endswith("/content"):
            return self.files[part[-2]]
        if path.endswith("/results"):
            return self.batches[part[-2]]["results"]
        if path.endswith("/batches"):
            if method == "GET":
                return {"object": "list", "data": [b["shown"] for b in self.batches.values()], "has_more": False}
            return self._make_batch(json.loads(raw), "/messages/" in path)
        if part[-2] == "batches" and part[-1] in self.batches:
            batch = self.batches[part[-1]]
            batch["looks"] += 1
            if batch["looks"] == self.looks_needed:
                self._end_batch(batch, "/messages/" in path)
            return batch["shown"]
        return None

    def _make_batch(self, body: dict[str, Any], anthropic: bool) -> Any:
        name = f"batch-{len(self.batches)}"
        if anthropic:
            asks = [(r["custom_id"], r["params"]) for r in body["requests"]]
            rows = [{"custom_id": k, "result": {"type": "succeeded", "message": completion(b, True)}} for k, b in asks]
            counts = {"processing": len(asks), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
            shown = {
                "id": name, "type": "message_batch", "processing_status": "in_progress", "request_counts": counts,
                "created_at": "2100-01-01T00:00:00Z", "expires_at": "2100-01-02T00:00:00Z", "ended_at": None,
                "results_url": f"{self.anthropic}/v1/messages/batches/{name}/results", "cancel_initiated_at": None,
                "archived_at": None,
            }  # fmt: skip
        else:
            lines = [line for line in self.files[body["input_file_id"]].splitlines() if line.startswith(b"{")]
            asks = [(r["custom_id"], r["body"]) for r in map(json.loads, lines)]
            rows = [
                {"id": k, "custom_id": k, "response": {"status_code": 200, "body": completion(b, False)}, "error": None}
                for k, b in asks
            ]
            shown = {
                "id": name, "object": "batch", "status": "in_progress", "endpoint": "/v1/chat/completions",
                "input_file_id": body["input_file_id"], "completion_window": "24h", "created_at": 4102444800,
                "metadata": body["metadata"], "output_file_id": f"{name}-out", "error_file_id": None,
            }  # fmt: skip
        for _, ask in asks:
            self.asked[ask["messages"][-1]["content"]] += 1
        self.batches[name] = {"shown": shown, "rows": rows, "results": b"", "looks": 0}
        return shown

    def _end_batch(self, batch: dict[str, Any], anthropic: bool) -> None:
        shown, rows = batch["shown"], batch["rows"]
        shown["processing_status" if anthropic else "status"] = "ended" if anthropic else "completed"
        self.end(shown, rows)
        good = rows if anthropic else [row for row in rows if (row["response"] or {}).get("status_code") == 200]
        batch["results"] = as_lines(good)
        if not anthropic:
            for field, some in (("output", good), ("error", [row for row in rows if row not in good])):
                shown[f"{field}_file_id"] = f"{shown['id']}-{field}" if some else None
                self.files[f"{shown['id']}-{field}"] = as_lines(some)


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def http(status: int, content: bytes, extra: dict[str, str] | None = None) -> bytes:
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(extra or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + content


def faults_of(teacher: str) -> tuple[Any, ...]:
    """Every way to stumble, once."""
    return (
        (429, {"Retry-After": "0.2"}, '{"error": {"message": "slow down"}}'),
        (500, {}, "oops"),
        (529, {}, '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'),
        HALF, GARBAGE, SHAPELESS, HANG, DROP,
    )  # fmt: skip


if __name__ == "__main__":
    server = Loopback(float(sys.argv[1]))
    asyncio.run(server.run(lambda port: print(port, flush=True)))
