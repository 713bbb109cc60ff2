"""Set before torch is imported: no network, no spinning threads. One undisturbed small run is shared by all tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GOMP_SPINCOUNT"] = "0"
os.environ.pop("STILLROOM_STORE", None)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of one undisturbed run of `abacus-small`. Read it, never write to it."""
    root = tmp_path_factory.mktemp("small")
    call = [sys.executable, "-m", "stillroom", "run", "abacus-small", "settings.device=cpu"]
    subprocess.run(call, env={**os.environ, "STILLROOM_STORE": str(root)}, check=True, capture_output=True)
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
