"""One holder at a time: others wait, and take over only from the dead or the silent."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stillroom.errors import LeaseLost
from stillroom.leases import Lease, process_started

HOLD = """
import sys, time
from pathlib import Path
from stillroom.leases import Lease
folder = Path(sys.argv[1])
lease = Lease(folder / "lease", folder / "lock", float(sys.argv[2]))
assert lease.acquire(lambda why: print("waits", why, flush=True), lambda: False)
print("holds", flush=True)
sys.stdin.readline()
lease.check()
lease.release()
print("released", flush=True)
"""


def lease(folder: Path, patience: float = 60.0) -> Lease:
    return Lease(folder / "lease", folder / "lock", patience)


def holder(folder: Path, patience: float = 60.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(patience)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate("go\n", timeout=20)
    return out.strip()


def held_elsewhere(folder: Path, beat: int = 0) -> None:
    """A lease file as a process on another machine writes it."""
    text = json.dumps({"host": "elsewhere", "pid": 1, "started": 1.0, "token": "t", "beat": beat})
    (folder / "lease").write_text(text)


def test_one_process_holds_and_the_other_waits(tmp_path: Path) -> None:
    first = holder(tmp_path)
    assert says(first) == "holds"
    second = holder(tmp_path)
    assert says(second).startswith(f"waits waiting for process {first.pid} on ")
    assert let_go(first) == "released"
    assert says(second) == "holds"
    assert let_go(second) == "released"
    assert not (tmp_path / "lease").exists()


def test_a_killed_holder_is_taken_over_at_once(tmp_path: Path) -> None:
    first = holder(tmp_path)
    assert says(first) == "holds"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    mine, began = lease(tmp_path), time.monotonic()
    assert mine.acquire(pytest.fail, lambda: False)
    assert time.monotonic() - began < 2
    mine.release()


def test_a_process_number_that_another_program_got_since_counts_as_dead(tmp_path: Path) -> None:
    mine = lease(tmp_path)
    mine._write()
    held = json.loads((tmp_path / "lease").read_text())
    (tmp_path / "lease").write_text(json.dumps({**held, "token": "t", "started": held["started"] - 1}))
    assert mine.try_acquire() is None
    mine.release()


def test_a_silent_heartbeat_is_taken_over_after_patience(tmp_path: Path) -> None:
    held_elsewhere(tmp_path)
    mine, told, began = lease(tmp_path, 0.6), [], time.monotonic()
    assert mine.acquire(told.append, lambda: False)
    assert 0.6 <= time.monotonic() - began < 3
    assert told == ["waiting for process 1 on elsewhere"]
    mine.release()


def test_a_live_heartbeat_is_never_taken_over(tmp_path: Path) -> None:
    held_elsewhere(tmp_path)
    finished, stop = threading.Event(), threading.Event()

    def beat() -> None:
        for count in range(1, 1000):
            if stop.wait(0.1):
                return
            with mine._lock:
                held_elsewhere(tmp_path, count)

    mine = lease(tmp_path, 0.5)
    thread = threading.Thread(target=beat)
    thread.start()
    threading.Timer(1.6, finished.set).start()
    try:
        assert not mine.acquire(lambda why: None, finished.is_set)
    finally:
        stop.set()
        thread.join()
    assert json.loads((tmp_path / "lease").read_text())["host"] == "elsewhere"


def test_a_holder_keeps_its_own_heart_beating(tmp_path: Path) -> None:
    mine = lease(tmp_path, 0.3)
    assert mine.acquire(lambda why: None, lambda: False)
    first = json.loads((tmp_path / "lease").read_text())
    later, began = first, time.monotonic()
    while later["beat"] == first["beat"] and time.monotonic() - began < 20:
        time.sleep(0.05)
        later = json.loads((tmp_path / "lease").read_text())
    assert later["beat"] > first["beat"]
    assert later["started"] == process_started(later["pid"])
    mine.release()


def test_a_paused_holder_learns_that_it_was_taken_over(tmp_path: Path) -> None:
    first = holder(tmp_path)
    assert says(first) == "holds"
    first.send_signal(signal.SIGSTOP)
    held = json.loads((tmp_path / "lease").read_text())
    (tmp_path / "lease").write_text(json.dumps({**held, "host": "elsewhere"}))  # so that only the heartbeat tells
    mine = lease(tmp_path, 0.4)
    assert mine.acquire(lambda why: None, lambda: False)
    first.send_signal(signal.SIGCONT)
    assert let_go(first) == ""
    assert first.returncode != 0
    mine.check()
    mine.release()


def test_check_raises_when_the_lease_is_another_s_or_gone(tmp_path: Path) -> None:
    mine = lease(tmp_path)
    assert mine.acquire(lambda why: None, lambda: False)
    mine.check()
    held_elsewhere(tmp_path)
    with pytest.raises(LeaseLost, match="took this stage over"):
        mine.check()
    mine.release()
    assert (tmp_path / "lease").exists()  # what is another's is not released
    (tmp_path / "lease").unlink()
    with pytest.raises(LeaseLost):
        mine.check()


def test_of_several_waiters_one_takes_over(tmp_path: Path) -> None:
    held_elsewhere(tmp_path)
    seen = json.loads((tmp_path / "lease").read_text())
    waiters = [lease(tmp_path) for _ in range(6)]
    barrier, won = threading.Barrier(6), []

    def take(one: Lease) -> None:
        barrier.wait()
        if one.try_acquire(seen) is None:
            won.append(one)

    threads = [threading.Thread(target=take, args=(one,)) for one in waiters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].check()
    won[0].release()


def test_an_unreadable_lease_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text("[broken")
    mine = lease(tmp_path)
    assert mine.try_acquire() is None
    mine.release()
