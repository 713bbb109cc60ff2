"""Set before torch is imported: no network, no spinning threads. One undisturbed small run is shared by all tests."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from nursery import Nursery

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GOMP_SPINCOUNT"] = "0"
if "PYTEST_XDIST_WORKER" in os.environ:  # tests run side by side: a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("STILLROOM_STORE", None)

LONGEST = ("test_pipeline_cluster", "test_training_distributed", "test_survival", "test_studio_browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: begun last, one of them would keep a single core busy at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where commands are carried out by processes of their own, which do not import everything anew."""
    with Nursery() as one:
        yield one


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str, nursery: Nursery) -> Path:
    """The store of one undisturbed run of `abacus-small`, the same for all processes. Read it, never write to it."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "small"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            under_way = tmp_path_factory.mktemp("under-way")
            log, environment = base / "small.log", {"STILLROOM_STORE": str(under_way)}
            ended = nursery.run(log, environment, "run", "abacus-small", "settings.device=cpu")
            assert not ended, log.read_text()
            under_way.rename(root)
    return root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB, where the test may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("a full disk is tried on a small tmpfs, which only root may mount")
    call = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    mounted = subprocess.run(call, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
