"""The store: a run of a stage is a folder `STAGE/KEY/`, named by what it was made from, with its manifest written last.

    key = hash(stage, the stage's own version, config, the parents' keys)

A folder without a manifest does not exist for readers; one whose files no longer match their checksums is set aside
and made again. Content hashes cover results only: times, hosts and costs stand in the manifest. What a stage needs to
survive a kill (checkpoints, predictions so far) lies in `STAGE/KEY/partial/` until the stage is committed.
"""

import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from stillroom.errors import StoreError
from stillroom.files import disk_is_full, no_space, sha256, sync_folder, write_atomic
from stillroom.leases import Lease
from stillroom.progress import say
from stillroom.store.manifests import FORMAT, MANIFEST, Clock, Manifest, Parent, code_version, damage, made, read
from stillroom.store.stages import PARTIAL, Stage, Workplace, shares

__all__ = [
    "FORMAT",
    "MANIFEST",
    "PARTIAL",
    "Manifest",
    "Parent",
    "Stage",
    "Store",
    "Workplace",
    "code_version",
    "shares",
]


class Store:
    def __init__(self, root: Path, patience: float = 60.0) -> None:
        self.root = root
        self.patience = patience

    manifest = staticmethod(read)
    damage = staticmethod(damage)

    def folder(self, stage: str, key: str) -> Path:
        return self.root / stage / key

    def manifests(self) -> Iterator[Manifest]:
        """All committed folders, oldest first."""
        found = [self.manifest(path.parent) for path in self.root.glob(f"*/*/{MANIFEST}") if path.parent.name.isalnum()]
        yield from sorted((m for m in found if m is not None), key=lambda m: (m.started, m.stage, m.name))

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite"

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
        clock = Clock()
        place = Workplace(out=folder, name=stage.name, check=lease.check, **given, **settings)
        before()
        stage.run(place)
        shutil.rmtree(folder / PARTIAL, ignore_errors=True)
        files = {str(p.relative_to(folder)): _settle(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        for path in (p for p in folder.rglob("*") if p.is_dir()):
            sync_folder(path)
        lease.check()
        parents = {role: self._parent(parent) for role, parent in stage.parents.items()}
        manifest = made(stage, parents, files, clock, settings.get("device", "cpu"), place.measured)
        write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        shutil.rmtree(shares(folder), ignore_errors=True)
        say(f"  {stage.name}: done in {manifest.seconds:.1f} s")

    def _parent(self, stage: Stage) -> Parent:
        manifest = self.manifest(self.folder(stage.stage, stage.key))
        assert manifest is not None, "parents are made before their children"
        return Parent(stage=stage.stage, key=stage.key, content=manifest.content)


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
