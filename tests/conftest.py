"""Set before torch is imported: no network, no spinning threads. One undisturbed small run is shared by all tests."""

import os
import subprocess
import sys
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
