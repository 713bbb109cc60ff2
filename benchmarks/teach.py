"""Asking teachers: requests a second and memory, journal included, against a loopback stub with 50 ms latency.

    .venv/bin/python benchmarks/teach.py [--quick]    (--quick: 2,000 and 10,000 questions, not 10,000 and 100,000)

The stub runs in a process of its own on the same cores: what it needs is missing from our rate, and its memory is not
counted. The peer is the bare client library at the same concurrency, without journal, limits or files.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import at_least, at_most, close, told_load

CONCURRENCY, LATENCY = 128, "0.05"
STUB = r"""
import asyncio, json, sys
reply = json.dumps({"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [{"index": 0,
    "finish_reason": "stop", "message": {"role": "assistant", "content": "Step 1: 1 + 1 = 2.\nThe answer is 2."}}],
    "usage": {"prompt_tokens": 60, "completion_tokens": 20, "total_tokens": 80}}).encode()
head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(reply)
async def serve(reader, writer):
    try:
        while True:
            top = await reader.readuntil(b"\r\n\r\n")
            size = next(int(l.split(b":")[1]) for l in top.split(b"\r\n") if l.lower().startswith(b"content-length"))
            await reader.readexactly(size)
            await asyncio.sleep(float(sys.argv[1]))
            writer.write(head + reply)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def write_questions(path: Path, count: int) -> None:
    with path.open("w") as file:
        for i in range(count):
            question = f"Ann has {i} eggs and buys {i % 7} boxes of {i % 12} eggs each. How many eggs has she?"
            print(json.dumps({"id": f"q{i}", "question": question, "answer": str(i)}), file=file)


async def bare(url: str, count: int) -> float:
    """Requests a second of the library alone."""
    import openai

    client = openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=2, timeout=10)
    left, began = iter(range(count)), time.monotonic()

    async def worker() -> None:
        for i in left:
            await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": f"question {i}"}], max_tokens=512, temperature=0
            )

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    await client.close()
    return count / (time.monotonic() - began)


def ours(url: str, questions: Path, count: int, store: Path) -> tuple[float, float]:
    """Requests a second of the whole command, start-up and writing the result included; its peak memory in MB."""
    call = [sys.executable, "-m", "stillroom", "teach", str(questions), "--teacher", "openai:m", "--base-url", url]
    call += ["--concurrency", str(CONCURRENCY), "-n", str(count), "-o", str(store / "cot.jsonl")]
    watched = [sys.executable, __file__, "--watch", *call]
    environment = {**os.environ, "STILLROOM_STORE": str(store)}
    began = time.monotonic()
    done = subprocess.run(watched, env=environment, check=True, capture_output=True, text=True)
    return count / (time.monotonic() - began), float(done.stdout.split()[-1])


def watch(call: list[str]) -> None:
    subprocess.run(call, check=True)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def main() -> None:
    quick = "--quick" in sys.argv
    small, large = (2_000, 10_000) if quick else (10_000, 100_000)
    load = told_load()
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, "-c", STUB, LATENCY], stdout=subprocess.PIPE, text=True) as stub,
    ):
        assert stub.stdout is not None
        url, questions = f"http://127.0.0.1:{int(stub.stdout.readline())}/v1", Path(folder) / "questions.jsonl"
        write_questions(questions, large)
        rounds = []
        for i in range(1 if quick else 3):
            store = Path(folder) / str(i)
            store.mkdir()
            rounds.append((*ours(url, questions, small, store), asyncio.run(bare(url, 2_000))))
        rate, peak, alone = (sorted(column)[len(rounds) // 2] for column in zip(*rounds, strict=True))
        store = Path(folder) / "large"
        store.mkdir()
        long_rate, long_peak = ours(url, questions, large, store)
        stub.terminate()
    figures = [
        at_least(f"{small} questions", rate, "requests/s", 0 if quick else 600),  # start-up is a third of 2,000
        at_least("the bare client", alone, "requests/s", 0),
        at_least(f"{large} questions", long_rate, "requests/s", 600),
        at_most(f"peak memory of {small}", peak, "MB", 200),
        at_most(f"peak memory of {large}", long_peak, "MB", 200),
        at_most("growth of the peak", long_peak / peak, "times", 1.1),
    ]
    close("teach", figures, load, "openai")


if __name__ == "__main__":
    watch(sys.argv[2:]) if sys.argv[1:2] == ["--watch"] else main()
