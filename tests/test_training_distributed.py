"""One process or many, left alone, killed or asked to stop: the same student."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nursery import Nursery
from stillroom.store import Store
from stillroom.students import load

SMALL = [
    "task.train=200", "base.fit.updates=4", "base.fit.precision=float32", "base.fit.threads=1", "fit.threads=1",
    "students={normal: {variant: normal}}", "fit.precision=float32", "fit.updates=40", "fit.batch_size=32",
    "settings.device=cpu",
]  # fmt: skip
PARTS = ("fit.micro_batch=8",)
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


class Forked:
    """A process of the nursery's, as `subprocess` would show it."""

    def __init__(self, nursery: Nursery, store: Path, *call: str) -> None:
        self.nursery, self.log = nursery, store.with_name("log")
        self.log.unlink(missing_ok=True)
        self.pid = nursery.begin(self.log, {"STILLROOM_STORE": str(store)}, *call)

    def poll(self) -> int | None:
        return None if psutil.pid_exists(self.pid) else -1

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        self.returncode = self.nursery.end()
        return None, self.log.read_text()


Run = subprocess.Popen | Forked


def start(nursery: Nursery, store: Path, *overrides: str, many: bool = False, until: str = "student") -> Run:
    """`stillroom run` on a tiny abacus, alone or, by torchrun, as two processes in a group of their own."""
    call = ["run", "abacus-small", *SMALL, *overrides, "--until", until]
    if not many:
        return Forked(nursery, store, *call)
    quiet = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", "STILLROOM_STORE": str(store)}
    return subprocess.Popen(
        [sys.executable, *TWO, "-m", "stillroom", *call],
        env={**os.environ, **quiet}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, process_group=0,
    )  # fmt: skip


def finish(run: Run) -> str:
    told = run.communicate(timeout=240)[1]
    assert run.returncode == 0, told
    return str(told)


def student_folder(store: Path) -> Path:
    (manifest,) = [m for m in Store(store).manifests() if m.stage == "student"]
    return store / "student" / manifest.key


def weights(store: Path) -> dict[str, Tensor]:
    return load_file(student_folder(store) / "model.safetensors")


@pytest.fixture(scope="module")
def based(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds everything up to the base."""
    store = tmp_path_factory.mktemp("based") / "store"
    finish(start(nursery, store, until="base"))
    return store


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, based: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores of runs that nobody disturbed: of whole updates, of updates in parts, and of two processes."""
    stores = {}
    for name, overrides in (("whole", ()), ("one", PARTS), ("two", PARTS)):
        stores[name] = Path(shutil.copytree(based, tmp_path_factory.mktemp(name) / "store"))
        told = finish(start(nursery, stores[name], *overrides, many=name == "two"))
        assert told.count("> normal: ") == 1  # one of the processes speaks
    return stores


@pytest.fixture
def store(based: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(based, tmp_path / "store"))


def assert_same(one: Path, other: Path, tolerance: float) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=tolerance, msg=name)


def test_an_update_in_parts_and_by_two_processes_is_the_same_update(undisturbed: dict[str, Path]) -> None:
    """Pitfall 17: 1 x 32 = 4 x 8 = 2 processes x 2 x 8, weighted by labels."""
    assert_same(undisturbed["whole"], undisturbed["one"], 1e-5)
    assert_same(undisturbed["whole"], undisturbed["two"], 1e-5)


def disturb(store: Path, run: Run, after: int, blow: signal.Signals) -> str:
    """Send a signal to every process of the run once it has saved update `after`; what it told before it ended."""
    deadline = time.monotonic() + 120
    while not any(int(p.name.rpartition("-")[2]) >= after for p in store.glob("student/*/partial/checkpoint-*[0-9]")):
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.005)
    family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    for process in family if blow == signal.SIGKILL else family[:1]:  # torchrun hands SIGTERM on itself
        process.send_signal(blow)
    told = run.communicate(timeout=120)[1]
    assert run.returncode != 0
    assert not list(store.glob("student/*/manifest.json"))
    return str(told)


@pytest.mark.parametrize("many", [False, True], ids=["one", "two"])
def test_a_run_that_is_killed_and_then_stopped_goes_on_to_the_same_bytes(
    many: bool, undisturbed: dict[str, Path], store: Path, nursery: Nursery
) -> None:
    saving = (*PARTS, "settings.checkpoint_seconds=0.001")
    disturb(store, start(nursery, store, *saving, many=many), 10, signal.SIGKILL)
    stopped = start(nursery, store, *saving, many=many)
    told = disturb(store, stopped, 25, signal.SIGTERM)
    assert "normal: stopped after update" in told
    assert "is saved: run the same command to go on" in told
    assert stopped.returncode == 75 or many  # torchrun has a code of its own
    finish(start(nursery, store, *saving, many=many))
    reference = undisturbed["two" if many else "one"]
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (student_folder(store) / name).read_bytes() == (student_folder(reference) / name).read_bytes()


def test_shared_out_weights_train_are_saved_and_taken_up_by_one_process(
    undisturbed: dict[str, Path], store: Path, nursery: Nursery
) -> None:
    saving = (*PARTS, "settings.checkpoint_seconds=0.001")
    disturb(store, start(nursery, store, *saving, "settings.shard=true", many=True), 4, signal.SIGTERM)
    finish(start(nursery, store, *PARTS))
    assert_same(undisturbed["whole"], store, 1e-4)
    assert load(student_folder(store)).prompt("Tom has 3 eggs.")


def test_shared_out_weights_give_a_folder_like_any_other(
    undisturbed: dict[str, Path], store: Path, nursery: Nursery
) -> None:
    finish(start(nursery, store, *PARTS, "settings.shard=true", many=True))
    assert_same(undisturbed["whole"], store, 1e-4)
