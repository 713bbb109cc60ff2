"""What a stage is, and where it works."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.records import content_key

PARTIAL = "partial"


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
