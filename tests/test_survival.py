"""A run that is killed and taken up again ends with the same content as one left alone."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from nursery import Nursery
from stillroom.store import Store

CALL = ("run", "abacus-small", "settings.device=cpu")


def contents(root: Path) -> dict[str, str]:
    return {f"{m.stage}/{m.key}": m.content for m in Store(root).manifests()}


def stages(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("> ")] if log.exists() else []


def test_killed_at_random_moments_ends_with_the_same_content(
    small_store: Path, tmp_path: Path, nursery: Nursery
) -> None:
    store = tmp_path / "store"
    environment, rng, killed_in = {"STILLROOM_STORE": str(store)}, random.Random(0), []
    for number in range(4):
        log, begun = tmp_path / f"log-{number}", rng.randint(1, 3)
        process = nursery.begin(log, environment, *CALL, "settings.checkpoint_seconds=0.1")
        deadline = time.monotonic() + 200
        while len(stages(log)) < begun:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.5))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        assert nursery.end() == -signal.SIGKILL, "the run ended before it could be killed"
        killed_in.append(stages(log)[-1])
    assert nursery.run(tmp_path / "log", environment, *CALL) == 0
    assert len(set(killed_in)) > 1, killed_in
    assert contents(store) == contents(small_store)
    assert not list(store.glob("*/*/partial"))


def test_two_runs_at_once_share_the_work(small_store: Path, tmp_path: Path, nursery: Nursery) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    call = [sys.executable, "-m", "stillroom", *CALL, "--until", "base"]
    environment = {"STILLROOM_STORE": str(store)}
    with subprocess.Popen(call, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True) as one:
        assert one.stderr is not None
        told = one.stderr.readline()  # it has begun
        nursery.begin(log, environment, *CALL, "--until", "base")
        told += one.stderr.read()
    ended, told = nursery.end(), told + log.read_text()
    assert (one.returncode, ended) == (0, 0), told
    assert told.count("> base:") == 1
    assert contents(store).items() <= contents(small_store).items()
