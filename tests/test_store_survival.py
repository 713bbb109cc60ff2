"""The store when the disk is full, and when two processes want the same thing."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stillroom.errors import LeaseLost, StoreError
from stillroom.files import write_atomic
from stillroom.store import Store, Workplace
from toys import stage


def by_python(path: Path) -> None:
    write_atomic(path, b"x" * 2_000_000)


def by_safetensors(path: Path) -> None:
    save_file({"w": torch.zeros(500_000)}, path)


@pytest.mark.parametrize("write", [by_python, by_safetensors])
def test_a_full_disk_loses_what_was_not_committed_and_nothing_else(write, small_disk: Path) -> None:
    store = Store(small_disk / "store")
    before = store.ensure(stage("before"))

    def run(at: Workplace) -> None:
        (at.partial / "so far").write_text("half")
        write(at.out / "large")

    large = dataclasses.replace(stage("large"), run=run)
    with pytest.raises(StoreError, match=rf"is full: echo echo large \({large.key}\) was not committed"):
        store.ensure(large)
    assert store.damage(before) is None
    assert [m.name for m in store.manifests()] == ["echo before"]
    assert store.find(large) is None
    folder = store.folder("echo", large.key)
    assert (folder / "partial" / "so far").read_text() == "half"
    small = dataclasses.replace(large, run=stage("small").run)  # room was made, the same command goes on
    assert store.ensure(small) == folder
    assert store.damage(folder) is None


MAKE = """
import sys, time, dataclasses
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from stillroom.store import Stage, Store
def run(at):
    print("computes", flush=True)
    time.sleep(0.7)
    (at.out / "said.txt").write_text("once")
store = Store(Path(sys.argv[1]))
folder = store.ensure(Stage("echo", "slow", 1, {}, {}, run))
assert (folder / "said.txt").read_text() == "once" and store.damage(folder) is None
"""


def test_two_processes_that_want_the_same_stage_compute_it_once(tmp_path: Path) -> None:
    call = [sys.executable, "-c", MAKE, str(tmp_path), str(Path(__file__).parent)]
    both = [subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert "".join(out for out, _ in told).count("computes") == 1


def test_a_stage_that_was_taken_over_is_not_committed(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def run(at: Workplace) -> None:
        (at.out / "said.txt").write_text("late")
        next(at.out.parent.glob(".*.lease")).write_text('{"host": "elsewhere", "pid": 1, "started": 1, "token": "t"}')

    late = dataclasses.replace(stage(), run=run)
    with pytest.raises(LeaseLost, match="took this stage over"):
        store.ensure(late)
    assert list(store.manifests()) == []
