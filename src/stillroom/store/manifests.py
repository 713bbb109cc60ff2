"""The manifest of a stage's folder: what it holds, and how it came to be. Written last, it makes the folder exist."""

import functools
import hashlib
import json
import os
import platform
import resource
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stillroom import __version__
from stillroom.errors import StoreError
from stillroom.files import sha256
from stillroom.records import content_key
from stillroom.store.stages import Stage

FORMAT = 3
SEALED = 3
"""The format since which a manifest says of itself whether it is what was written."""
MANIFEST = "manifest.json"
RECORDED = ("torch", "transformers", "accelerate", "tokenizers", "numpy")


class Parent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    key: str
    content: str


class Manifest(BaseModel):
    """What a committed folder holds and how it came to be. `content` is the hash of `files` and of nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int
    stage: str
    name: str
    key: str
    version: int
    config: dict[str, Any]
    parents: dict[str, Parent]
    files: dict[str, str]
    content: str
    code: str
    host: str
    machine: str
    libraries: dict[str, str]
    started: str
    seconds: float
    peak_mb: int
    """Peak resident memory of the process that made it, up to the end of this stage."""
    measured: dict[str, float] = {}
    """What the stage timed or counted of its own work: no part of `content`."""
    seal: str = ""
    """The hash of all other fields. Format 2 had none."""

    def sealed(self) -> str:
        return content_key(self.model_dump(mode="json", exclude={"seal"}))


def read(folder: Path) -> Manifest | None:
    """The manifest of a committed folder, files unchecked; None where there is none that can be read."""
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
        written = int(data["format"])
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return None
    if written > FORMAT:
        raise StoreError(
            f"{folder}: written in store format {written}, this Stillroom reads up to {FORMAT}: "
            "upgrade Stillroom, or name another store with STILLROOM_STORE"
        )
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError:
        return None
    return manifest if written < SEALED or manifest.seal == manifest.sealed() else None


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that has a manifest file; None if all its files are as they were committed."""
    manifest = read(folder)
    if manifest is None:
        return f"{MANIFEST} cannot be read, or is not what was written"
    for name, digest in manifest.files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256(folder / name) != digest:
            return f"{name} is not what was committed (its SHA-256 differs)"
    return None


@dataclass(frozen=True)
class Clock:
    """When a stage began."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    ticks: float = field(default_factory=time.monotonic)


def made(
    stage: Stage,
    parents: Mapping[str, Parent],
    files: dict[str, str],
    clock: Clock,
    device: str,
    measured: dict[str, float],
) -> Manifest:
    """What is to be said of a stage that was made just now, on this machine, since `clock`."""
    manifest = Manifest(
        format=FORMAT,
        stage=stage.stage,
        name=stage.name,
        key=stage.key,
        version=stage.version,
        config=stage.config,
        parents=dict(parents),
        files=files,
        content=content_key(files),
        code=code_version(),
        host=socket.gethostname(),
        machine=f"{platform.machine()}, {os.cpu_count()} CPUs, device {device}",
        libraries={"python": platform.python_version(), **{name: _version(name) for name in RECORDED}},
        started=clock.started.isoformat(timespec="milliseconds"),
        seconds=round(time.monotonic() - clock.ticks, 2),
        peak_mb=_peak_mb(),
        measured=measured,
    )
    return manifest.model_copy(update={"seal": manifest.sealed()})


@functools.cache
def code_version() -> str:
    """The package's version and a hash of its sources."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".yaml", ".html")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def _peak_mb() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)  # bytes there, KiB elsewhere


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
