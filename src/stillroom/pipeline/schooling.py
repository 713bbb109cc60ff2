"""What is taught: the stages from problems to lessons, and the gate between what is taught and what is tested."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from stillroom import curriculum, tasks, teachers
from stillroom.config import Config
from stillroom.curriculum import compliance, gates
from stillroom.errors import ConfigError, DataError, shown
from stillroom.files import sha256
from stillroom.pipeline.staging import choose, staged
from stillroom.recipes import Recipe, Variant
from stillroom.store import Stage
from stillroom.tasks import TASKS, Task, contamination
from stillroom.tasks.contamination import PROBLEMS, ContaminationConfig
from stillroom.teachers import TEACHERS


def checksum(path: Path) -> str:
    """The SHA-256 of a data file, read once for all cells of a sweep."""
    told = path.stat()
    return _checksum(path, told.st_mtime_ns, told.st_size)


@lru_cache
def _checksum(path: Path, changed: int, size: int) -> str:
    return sha256(path)


@dataclass(frozen=True)
class Schooling:
    where: str
    recipe: Recipe

    @property
    def data(self) -> Path:
        return Path(self.recipe.data or os.environ.get("STILLROOM_DATA") or "data")

    def checksums(self, files: tuple[str, ...]) -> dict[str, Any]:
        for name in files:
            if not os.path.isfile(self.data / name):  # noqa: PTH113 (a name too long for the disk is no error there)
                raise DataError(tasks.benchmarks.absent(self.data / shown(name)))
        return {"files": {name: checksum(self.data / name) for name in files}} if files else {}

    def problems(self, name: str, task: Task, config: Config) -> Stage:
        make = partial(tasks.make_problems, task, config, self.data)
        return staged("problems", name, tasks.VERSION, config, {}, make, self.checksums(task.files(config)))

    def tests(self) -> Iterator[tuple[str, Stage]]:
        names = [str(entry.get("name")) for entry in self.recipe.test_on]
        for name, entry in zip(names, self.recipe.test_on, strict=True):
            if names.count(name) > 1:
                raise ConfigError(f"{self.where}: test_on: {name!r} stands {names.count(name)} times; name a task once")
            task, config = choose(TASKS, entry, "test_on", self.where)
            yield name, self.problems(f"problems {name}", task, config)

    def gate(self, trained: str, problems: Stage, tests: Mapping[str, Stage]) -> Stage:
        roles = {PROBLEMS: trained, **{f"problems {name}": name for name in tests}}
        config = ContaminationConfig(allow=self.recipe.allow_overlap, tasks=roles)
        parents = {PROBLEMS: problems, **{f"problems {name}": stage for name, stage in tests.items()}}
        run = partial(contamination.make_overlaps, config)
        return staged("contamination", "contamination", contamination.VERSION, config, parents, run)

    def lessons(self, of: str, problems: Stage, kept: Stage, variant: Variant) -> Stage:
        config = curriculum.LessonsConfig(variant=variant)
        taught = {"problems": problems, "rationales": kept}
        run = partial(curriculum.make_lessons, config)
        return staged("lessons", f"lessons {variant}{of}", curriculum.VERSION, config, taught, run)

    def taught(self, of: str, teacher: dict[str, Any], problems: Stage) -> list[Stage]:
        """What a teacher writes, and what of it students are shown."""
        row, config = choose(TEACHERS, teacher, f"{'base.' if of else ''}teacher", self.where)
        write = partial(teachers.make_rationales, row, config, self.data, limits=self.recipe.settings.teach)
        rationales = staged(
            "rationales", f"rationales{of}", teachers.VERSION, config, {"problems": problems}, write,
            {**self.checksums(row.files(config)), **row.stamp(config)},
        )  # fmt: skip
        gate = self.recipe.gates
        parents = {"problems": problems, "rationales": rationales}
        return [
            rationales,
            staged("kept", f"kept{of}", gates.VERSION, gate, parents, partial(gates.make_kept, gate)),
        ]

    def obeyed(self, taught: Iterable[Stage]) -> Iterator[Stage]:
        """What tells of each of these rationales whether their teacher obeyed."""
        config = compliance.ComplianceConfig()
        for stage in taught:
            if stage.stage == "rationales":
                name = stage.name.replace("rationales", "compliance")
                parents = {"problems": stage.parents["problems"], "rationales": stage}
                run = partial(compliance.make_compliance, config)
                yield staged("compliance", name, compliance.VERSION, config, parents, run)
