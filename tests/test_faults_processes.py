"""Faults that end a process or keep it from writing: SIGTERM, a disk that is full, a store that is read-only."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nursery import Nursery
from stillroom.store import Store

RUN = ("run", "abacus-small", "settings.device=cpu")
SIZES = ("200k", "420k", "700k", "1m", "16m")


def remount(disk: Path, options: str) -> bool:
    call = ["mount", "-o", f"remount,{options}", str(disk)]
    return subprocess.run(call, check=False, capture_output=True).returncode == 0


def contents(root: Path) -> dict[str, str]:
    return {f"{m.stage}/{m.key}": m.content for m in Store(root).manifests()}


def environment(store: Path) -> dict[str, str]:
    return {"STILLROOM_STORE": str(store), "OMP_NUM_THREADS": "1"}


def test_sigterm_at_random_moments_is_told_and_loses_nothing(
    small_store: Path, tmp_path: Path, nursery: Nursery
) -> None:
    rng, store, stopped = random.Random(0), tmp_path / "store", 0
    for number in itertools.count():
        log = tmp_path / f"log-{number}"
        process = nursery.begin(log, environment(store), *RUN, "settings.checkpoint_seconds=0.1", "--until", "base")
        began = number % 3 + rng.randrange(2)
        deadline = time.monotonic() + 200
        while not log.exists() or log.read_text().count("\n> ") + log.read_text().startswith("> ") <= began:
            if time.monotonic() > deadline or Path(f"/proc/{process}/stat").exists() is False:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        if Path(f"/proc/{process}").exists():
            os.kill(process, signal.SIGTERM)
        code, told = nursery.end(), log.read_text()
        assert code in (0, 75), told
        assert "Traceback" not in told
        if code == 0 or number == 6:
            break
        stopped += 1
        assert told.splitlines()[-1].startswith("stillroom: "), told
        assert "run the same command to go on" in told.splitlines()[-1]
    assert stopped, "no run was stopped before it ended"
    assert nursery.run(tmp_path / "last", environment(store), *RUN, "--until", "base") == 0
    assert contents(store).items() <= contents(small_store).items()
    assert len(contents(store)) >= 7
    assert not list(store.glob("*/*/partial"))


def test_a_disk_that_fills_up_at_any_stage_is_told_and_room_lets_the_run_go_on(
    small_store: Path, small_disk: Path, tmp_path: Path, nursery: Nursery
) -> None:
    """The disk grows from one run to the next, so that each ends at another stage."""
    store, made = small_disk / "store", []
    for number, size in enumerate(SIZES):
        assert remount(small_disk, f"size={size}")
        log = tmp_path / f"log-{number}"
        code, told = nursery.run(log, environment(store), *RUN, "--until", "base"), log.read_text()
        assert "Traceback" not in told
        made.append(len(contents(store)))
        if size == SIZES[-1]:
            break
        assert code == 1, told
        assert told.splitlines()[-1].startswith("stillroom: "), told
        assert "full" in told.splitlines()[-1] or "No space left" in told.splitlines()[-1]
        assert all(Store(store).damage(store / name) is None for name in contents(store))
    assert code == 0, told
    assert made == sorted(made)
    assert len(set(made)) > 2, made
    assert contents(store).items() <= contents(small_store).items()


def test_a_read_only_store_is_read_and_refuses_to_be_written(
    small_store: Path, small_disk: Path, tmp_path: Path, nursery: Nursery
) -> None:
    assert remount(small_disk, "size=64m")
    store = Path(shutil.copytree(small_store, small_disk / "store"))
    before = contents(store)
    assert remount(small_disk, "ro")
    for number, (call, code, told) in enumerate(
        (
            (RUN, 0, "reused report/"),
            (("list",), 0, "report/"),
            (("show", "report/"), 0, '"stage": "report"'),
            (("report", "abacus-small"), 0, "report.html"),
            ((*RUN, "fit.updates=61"), 1, "cannot be written: "),
            (("run", "abacus-small", "--dry-run"), 0, "reuse "),
        )
    ):
        log = tmp_path / f"log-{number}"
        assert nursery.run(log, environment(store), *call) == code, log.read_text()
        assert told in log.read_text(), log.read_text()
        assert "Traceback" not in log.read_text()
    assert contents(store) == before


def test_output_that_cannot_be_written_is_told_in_a_sentence(
    small_store: Path, tmp_path: Path, nursery: Nursery
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    log = tmp_path / "log"
    call = ("report", "abacus-small", "-o", "/dev/full")
    assert nursery.run(log, environment(small_store), *call) == 1
    assert log.read_text().splitlines()[-1] == "stillroom: writing: No space left on device", log.read_text()
