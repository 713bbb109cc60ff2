"""The store: a run of a stage is a folder `STAGE/KEY/`, named by what it was made from, with its manifest written last.

    key = hash(stage, the stage's own version, config, the parents' keys)

A folder without a manifest does not exist for readers; one whose files no longer match their checksums is set aside
and made again. Content hashes cover results only: times, hosts and costs stand in the manifest. What a stage needs to
survive a kill (checkpoints, predictions so far) lies in `STAGE/KEY/partial/` until the stage is committed.
"""

import functools
import hashlib
import json
import os
import platform
import resource
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from stillroom import __version__
from stillroom.errors import StoreError
from stillroom.files import disk_is_full, no_space, sha256, sync_folder, write_atomic
from stillroom.leases import Lease
from stillroom.progress import say
from stillroom.records import content_key

FORMAT = 3
SEALED = 3
"""The format since which a manifest says of itself whether it is what was written."""
MANIFEST = "manifest.json"
PARTIAL = "partial"
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


@dataclass(frozen=True)
class Workplace:
    """Where a stage works: its own folder, its parents' folders, and the settings that change no result."""

    out: Path
    parents: Mapping[str, Path] = field(default_factory=dict)
    name: str = ""
    checkpoint_seconds: float = 30.0
    trackers: tuple[str, ...] = ()
    device: str = "cpu"
    shard: bool = False
    """Whether the weights are shared out over the processes of a run."""
    journal: Path = Path("journal.sqlite")
    """Where replies that were paid for are kept: one for the whole store, outside any stage."""
    check: Callable[[], None] = lambda: None
    """Raises when this process has lost the right to go on (see `leases.Lease`)."""

    share: tuple[int, int] | None = None
    """Which of how many parts of a stage that can be shared out is to be done, without a result of its own."""
    main: bool = True
    """Whether this process writes: the first of a run's processes does."""
    measured: dict[str, float] = field(default_factory=dict)
    """What the stage times or counts of its own work, for the manifest alone."""

    @property
    def shares(self) -> Path:
        """Where the parts of this stage work, each in a folder of its own."""
        return self.out.parent if self.share else shares(self.out)

    @property
    def partial(self) -> Path:
        path = self.out / PARTIAL
        path.mkdir(exist_ok=True)
        return path


@dataclass(frozen=True)
class Stage:
    """One row of the stage table's runs: what is to be made, by whom, from what."""

    stage: str
    name: str
    version: int
    config: dict[str, Any]
    parents: Mapping[str, "Stage"]
    run: Callable[[Workplace], None]

    @functools.cached_property
    def key(self) -> str:
        parents = {role: parent.key for role, parent in self.parents.items()}
        return content_key([self.stage, self.version, self.config, parents])


def shares(folder: Path) -> Path:
    """Where the parts of a stage lie until it is committed, beside its folder."""
    return folder.with_name(f".{folder.name}.shares")


@functools.cache
def code_version() -> str:
    """The package's version and a hash of its sources."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".yaml", ".html")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


class Store:
    def __init__(self, root: Path, patience: float = 60.0) -> None:
        self.root = root
        self.patience = patience

    def folder(self, stage: str, key: str) -> Path:
        return self.root / stage / key

    def manifest(self, folder: Path) -> Manifest | None:
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

    def manifests(self) -> Iterator[Manifest]:
        """All committed folders, oldest first."""
        found = [self.manifest(path.parent) for path in self.root.glob(f"*/*/{MANIFEST}") if path.parent.name.isalnum()]
        yield from sorted((m for m in found if m is not None), key=lambda m: (m.started, m.stage, m.name))

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite"

    def damage(self, folder: Path) -> str | None:
        """What is wrong with a folder that has a manifest file; None if all its files are as they were committed."""
        manifest = self.manifest(folder)
        if manifest is None:
            return f"{MANIFEST} cannot be read, or is not what was written"
        for name, digest in manifest.files.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if sha256(folder / name) != digest:
                return f"{name} is not what was committed (its SHA-256 differs)"
        return None

    def find(self, stage: Stage) -> Path | None:
        """The folder of a stage that is committed and intact."""
        folder = self.folder(stage.stage, stage.key)
        committed = (folder / MANIFEST).exists()
        return folder if committed and self._harm(stage, folder) is None else None

    def _harm(self, stage: Stage, folder: Path) -> str | None:
        """What is wrong with a stage's folder: damage, or that it is another's, as a bad copy leaves it."""
        manifest = self.manifest(folder)
        if manifest is not None and (manifest.stage, manifest.key) != (stage.stage, stage.key):
            return f"it holds {manifest.stage}/{manifest.key}"
        return self.damage(folder)

    def ensure(self, stage: Stage, before: Callable[[], Any] | None = None, **settings: Any) -> Path:
        """The folder of a stage, computed now if it is not there: by this process, or by another that has begun.

        `before` is called when this process is about to compute.
        """
        folder = self.folder(stage.stage, stage.key)
        if found := self.find(stage):
            say(f"= {stage.name}: reused {stage.stage}/{stage.key}")
            return found
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lease = Lease(folder.with_name(f".{stage.key}.lease"), self.root / ".lock", self.patience)
            waiting = f"= {stage.name}: "
            if not lease.acquire(lambda why: say(waiting + why), lambda: self.find(stage) is not None):
                return folder
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be written: {error}; name another with STILLROOM_STORE"
            ) from None
        try:
            if self.find(stage) is None:
                self._compute(stage, folder, lease, before or (lambda: None), settings)
        except (OSError, SafetensorError) as error:
            if not folder.is_dir():
                raise self._gone(stage) from error
            if isinstance(error, StoreError) or not disk_is_full(error):
                raise
            raise no_space(self.root, f"{stage.stage} {stage.name} ({stage.key})") from error
        finally:
            lease.release()
        return folder

    def _gone(self, stage: Stage) -> StoreError:
        return StoreError(
            f"the store {self.root} vanished while {stage.stage} {stage.name} ({stage.key}) was made: bring it back "
            "(mount it), then run the same command; it goes on from what the store holds"
        )

    def assist(self, stage: Stage, **settings: Any) -> None:
        """Compute a stage together with the process that holds its lease; nothing is written from here."""
        parents = {role: self.folder(p.stage, p.key) for role, p in stage.parents.items()}
        folder = self.folder(stage.stage, stage.key)
        stage.run(Workplace(out=folder, parents=parents, name=stage.name, main=False, **settings))

    def part(self, stage: Stage, share: tuple[int, int], **settings: Any) -> None:
        """Do one part of a stage's work, numbered from 0, for the process that will make the stage."""
        if self.find(stage) is not None:
            return
        whole = self.folder(stage.stage, stage.key)
        folder = shares(whole) / f"{share[0]}-of-{share[1]}"
        folder.mkdir(parents=True, exist_ok=True)
        lease = Lease(folder / ".lease", self.root / ".lock", self.patience)
        lease.acquire(lambda why: say(f"= {folder.name} of {stage.name}: {why}"), lambda: False)
        try:
            name = f"{stage.name} ({share[0] + 1} of {share[1]})"
            place = Workplace(out=folder, name=name, share=share, check=lease.check, **self._given(stage), **settings)
            say(f"> {name}: {stage.stage}/{stage.key}")
            stage.run(place)
        finally:
            lease.release()

    def _given(self, stage: Stage) -> dict[str, Any]:
        """What every workplace of a stage is given. Raises `StoreError` where a parent is not in the store."""
        parents = {role: self.folder(parent.stage, parent.key) for role, parent in stage.parents.items()}
        for folder in parents.values():
            if self.manifest(folder) is None:
                raise StoreError(
                    f"{stage.name}: its parent {folder} is not there for {socket.gethostname()}: the store must lie on "
                    "a file system that is there, for every machine of a run, until its end; bring it back and go on"
                )
        return {"parents": parents, "journal": self.journal}

    def _compute(
        self, stage: Stage, folder: Path, lease: Lease, before: Callable[[], Any], settings: dict[str, Any]
    ) -> None:
        if (folder / MANIFEST).exists():
            aside = folder.with_name(f"{stage.key}.damaged-{uuid.uuid4().hex[:8]}")
            say(f"! {stage.name}: {folder}: {self._harm(stage, folder)}; set aside as {aside.name} and made again")
            folder.replace(aside)
        folder.mkdir(exist_ok=True)
        given = self._given(stage)
        _sweep(folder)
        say(f"> {stage.name}: {stage.stage}/{stage.key}")
        started, clock = datetime.now(UTC), time.monotonic()
        place = Workplace(out=folder, name=stage.name, check=lease.check, **given, **settings)
        before()
        stage.run(place)
        shutil.rmtree(folder / PARTIAL, ignore_errors=True)
        files = {str(p.relative_to(folder)): _settle(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        for path in (p for p in folder.rglob("*") if p.is_dir()):
            sync_folder(path)
        lease.check()
        manifest = Manifest(
            format=FORMAT,
            stage=stage.stage,
            name=stage.name,
            key=stage.key,
            version=stage.version,
            config=stage.config,
            parents={role: self._parent(p) for role, p in stage.parents.items()},
            files=files,
            content=content_key(files),
            code=code_version(),
            host=socket.gethostname(),
            machine=f"{platform.machine()}, {os.cpu_count()} CPUs, device {settings.get('device', 'cpu')}",
            libraries={"python": platform.python_version(), **{name: _version(name) for name in RECORDED}},
            started=started.isoformat(timespec="milliseconds"),
            seconds=round(time.monotonic() - clock, 2),
            peak_mb=_peak_mb(),
            measured=place.measured,
        )
        manifest = manifest.model_copy(update={"seal": manifest.sealed()})
        write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        shutil.rmtree(shares(folder), ignore_errors=True)
        say(f"  {stage.name}: done in {manifest.seconds:.1f} s")

    def _parent(self, stage: Stage) -> Parent:
        manifest = self.manifest(self.folder(stage.stage, stage.key))
        assert manifest is not None, "parents are made before their children"
        return Parent(stage=stage.stage, key=stage.key, content=manifest.content)


def _peak_mb() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)  # bytes there, KiB elsewhere


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _sweep(folder: Path) -> None:
    """Remove what a killed run left behind, but for the part that it can resume from."""
    for path in folder.iterdir():
        if path.name == PARTIAL:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _settle(path: Path) -> str:
    """Flush a result to disk and return its SHA-256."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return sha256(path)
