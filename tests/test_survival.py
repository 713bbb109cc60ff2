"""A run that is killed and taken up again ends with the same content as one left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from stillroom.store import Store


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "stillroom", "run", "abacus-small", "settings.device=cpu", *arguments]


def contents(root: Path) -> dict[str, str]:
    return {f"{m.stage}/{m.key}": m.content for m in Store(root).manifests()}


def test_killed_at_random_moments_ends_with_the_same_content(small_store: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "STILLROOM_STORE": str(tmp_path)}
    rng = random.Random(0)
    kills = 0
    while True:
        process = subprocess.Popen(
            command("settings.checkpoint_seconds=0.2"),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _, error = process.communicate(timeout=rng.uniform(4, 7) if kills < 4 else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, error.decode()
        break
    assert kills >= 2
    assert contents(tmp_path) == contents(small_store)
    assert not list(tmp_path.glob("*/*/partial"))


def test_two_runs_at_once_share_the_work(small_store: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "STILLROOM_STORE": str(tmp_path)}
    both = []
    for _ in range(2):
        both.append(subprocess.Popen(command("--until", "base"), env=environment, stderr=subprocess.PIPE, text=True))
        time.sleep(0.3)
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    made = "".join(told).count("> base:")
    assert made == 1
    assert contents(tmp_path).items() <= contents(small_store).items()
