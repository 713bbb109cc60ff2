"""The right to compute one thing, held by one process at a time.

Nothing here knows what is computed.
"""

import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from stillroom.errors import LeaseLost
from stillroom.files import write_atomic

HOLDER = {"host", "pid", "started", "token"}


def _here(held: dict[str, Any]) -> bool:
    """Whether the holder's process would be seen from here if it ran."""
    return bool(held["host"] == socket.gethostname() and held.get("machine", machine()) == machine())


def _alive(pid: int, started: float) -> bool:
    """Whether the process that had this id at that start time still runs on this machine."""
    now = process_started(pid)
    return now is not None and (now == started or not started)


@functools.cache
def machine() -> str:
    """Which kernel this process runs on, and which processes it can see there: containers may share a host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_started(pid: int) -> float | None:
    """The start time of a process in clock ticks since boot; 0 where the system does not tell; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0.0


class Lease:
    """The right to compute one thing, held by one process at a time and kept alive by a heartbeat.

    A waiter takes over when the holder's process is gone (seen on the same machine) or when the heartbeat has not
    moved for `patience` seconds of the waiter's own clock, so clocks that differ between machines do no harm. The
    file lock guards only the moments in which the lease is read and written.
    """

    def __init__(self, path: Path, lock: Path, patience: float = 60.0) -> None:
        self.path = path
        self.patience = patience
        self.token = uuid.uuid4().hex
        self.beats = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = FileLock(lock)

    def _read(self) -> dict[str, Any] | None:
        try:
            data = json.loads(self.path.read_text())
            return data if isinstance(data, dict) and data.keys() >= HOLDER else None
        except (FileNotFoundError, ValueError):
            return None

    def _write(self) -> None:
        pid = os.getpid()
        holder = {"host": socket.gethostname(), "machine": machine(), "pid": pid, "started": process_started(pid)}
        write_atomic(self.path, json.dumps({**holder, "token": self.token, "beat": self.beats}))

    def try_acquire(self, seen: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Take the lease if it is free, dead, or still as in `seen`; otherwise return what its holder last wrote."""
        with self._lock:
            held = self._read()
            dead = held is not None and _here(held) and not _alive(held["pid"], held["started"])
            if held is not None and not dead and held != seen:
                return held
            self._write()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return None

    def acquire(self, on_wait: Callable[[str], None], done: Callable[[], bool]) -> bool:
        """Wait until the lease is ours (True) or until `done()` says that another finished the work (False)."""
        seen = self.try_acquire()
        since, told = time.monotonic(), False
        while seen is not None:
            if done():
                return False
            if not told:
                on_wait(f"waiting for process {seen['pid']} on {seen['host']}")
                told = True
            time.sleep(min(0.5, self.patience / 10))
            stale = time.monotonic() - since > self.patience
            held = self.try_acquire(seen if stale else None)
            if held != seen:
                seen, since = held, time.monotonic()
        return True

    def _keep(self) -> None:
        while not self._stop.wait(self.patience / 6):
            try:
                if not self.path.parent.is_dir():
                    continue  # the lock would make it anew, empty
                with self._lock:
                    if (self._read() or {}).get("token") != self.token:
                        return
                    self.beats += 1
                    self._write()
            except OSError:
                continue  # a full or absent disk for a moment; `check` tells whether the lease survived it

    def check(self) -> None:
        """Raise `LeaseLost` if another process has taken this over."""
        held = self._read()
        if held is None or held.get("token") != self.token:
            raise LeaseLost(
                f"{self.path.parent}: another process took this stage over while this one was paused; "
                "its result will be used. Run the command again to go on."
            )

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if not self.path.parent.is_dir():
            return
        with self._lock:
            if (self._read() or {}).get("token") == self.token:
                self.path.unlink(missing_ok=True)
