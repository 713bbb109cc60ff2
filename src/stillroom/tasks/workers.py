"""math-verify in processes that can be killed: `verify(gold, answer)` from any thread, notebook or system.

Each worker is a child that reads a question a line and ends itself when a question takes longer than `SECONDS` (a
timer outside the interpreter, so that no long multiplication holds it up), when its memory is spent, or when its
parent is gone. A new one takes its place. No signal is used.
"""

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

SECONDS = 3.0
"""Longest time for one question."""
GRACE = 1.5
"""Further seconds after which the parent kills a worker that did not end itself."""
WORKERS = max(1, min(4, os.cpu_count() or 1))


class Worker:
    """One child process; `ask` returns None when the child ended before it answered."""

    def __init__(self) -> None:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(  # noqa: S603 (this very interpreter)
            [sys.executable, "-m", "stillroom.tasks.verifier", str(SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        )
        self._ready = False

    def ask(self, gold: str, answer: str) -> bool | None:
        out, into = self._process.stdout, self._process.stdin
        assert out is not None and into is not None
        if not self._ready:
            self._ready = bool(out.readline())  # the library's import does not count as thinking
        timer = threading.Timer(SECONDS + GRACE, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            into.write(json.dumps([gold, answer]) + "\n")
            into.flush()
            reply = out.readline()
        except (OSError, ValueError):
            reply = ""
        finally:
            timer.cancel()
        return bool(json.loads(reply)) if reply.endswith("\n") else None

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # the other end is already gone
                    pipe.close()
        self._process.wait()


class Pool:
    """At most `size` workers, started when they are first needed."""

    def __init__(self, size: int) -> None:
        self._idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(None)

    def ask(self, gold: str, answer: str) -> bool | None:
        worker = self._idle.get()
        reply = None
        try:
            worker = worker or Worker()
            reply = worker.ask(gold, answer)
        finally:
            if reply is None and worker is not None:
                worker.close()
                worker = None
            self._idle.put(worker)
        return reply

    def close(self) -> None:
        """End every idle worker; the pool stays usable."""
        held = [self._idle.get() for _ in range(self._idle.qsize())]
        for worker in held:
            if worker is not None:
                worker.close()
            self._idle.put(None)


_pool: Pool | None = None
_lock = threading.Lock()


def pool() -> Pool:
    """The process's one pool."""
    global _pool  # noqa: PLW0603 (one pool a process is what keeps the number of children bounded)
    with _lock:
        if _pool is None:
            _pool = Pool(WORKERS)
            atexit.register(_pool.close)
        return _pool


def _forget() -> None:
    """A forked child must not write into its parent's pipes."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@lru_cache(maxsize=8192)
def _known(gold: str, answer: str) -> bool:
    reply = pool().ask(gold, answer)
    if reply is None:
        raise TimeoutError
    return reply


def verify(gold: str, answer: str) -> bool | None:
    """Whether the library holds the two for equal; None when it did not finish. A time-out is not remembered."""
    try:
        return _known(gold, answer)
    except TimeoutError:
        return None
