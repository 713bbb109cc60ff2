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


def test_killed_at_random_moments_ends_with_the_same_content(small_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    environment, rng, killed_in = {"STILLROOM_STORE": str(store)}, random.Random(0), []
    with Nursery() as nursery:
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


def test_two_runs_at_once_share_the_work(small_store: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "STILLROOM_STORE": str(tmp_path)}
    both = []
    for _ in range(2):
        call = [sys.executable, "-m", "stillroom", *CALL, "--until", "base"]
        both.append(subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True))
        time.sleep(0.3)
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    made = "".join(told).count("> base:")
    assert made == 1
    assert contents(tmp_path).items() <= contents(small_store).items()
