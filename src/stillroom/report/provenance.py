"""Where a report comes from: every stage that led to it by its key; and apart from them machine, time and cost.

What a stage is and what it holds is the same on every run, and stands in the report. When and on which host it was made
is not: those are read from the manifests when a report is handed out (`with_times`), so that the report in the store is
the same bytes whoever made it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stillroom.report.pages import address, manifest, template
from stillroom.store import MANIFEST, Manifest

SLOT = "<!--times-->"
"""Where a page takes up machine, time and cost. No value can hold it: all are escaped."""


def ancestors(parents: Mapping[str, Path]) -> dict[Path, Manifest]:
    """Every folder that led to these, parents first, with its manifest."""
    found: dict[Path, Manifest] = {}

    def visit(folder: Path) -> None:
        if folder in found or not (folder / MANIFEST).exists():
            return
        told = manifest(folder)
        for parent in told.parents.values():
            visit(folder.parent.parent / parent.stage / parent.key)
        found[folder] = told

    for folder in parents.values():
        visit(folder)
    return found


def rows(parents: Mapping[str, Path]) -> list[tuple[str, ...]]:
    """Name, stage and key, seed, content and the stage's own version of all that led to a report."""
    return [
        (told.name, f"{told.stage}/{told.key}", _seed(told), told.content, str(told.version))
        for told in ancestors(parents).values()
    ]


def _seed(told: Manifest) -> str:
    return str(told.config.get("fit", {}).get("seed", told.config.get("seed", "")))


def versions(parents: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Each library with the versions that the stages were made with."""
    found: dict[str, dict[str, None]] = {}
    for told in ancestors(parents).values():
        for name, version in told.libraries.items():
            found.setdefault(name, {})[version] = None
    return [(name, ", ".join(versions)) for name, versions in found.items()]


def with_times(page: str, folder: Path, costs: Sequence[Mapping[str, Any]] = ()) -> str:
    """A stored report, HTML or Markdown, with machine, time and cost of every stage. `folder` is the report's own.

    `costs` are rows of the teachers' journal, which belongs to the whole store.
    """
    made = list(ancestors({"report": folder}).values())
    name = "times.md" if not page.lstrip().lower().startswith("<!doctype") else "times.html"
    told = template(name).render(
        stages=[
            (m.name, f"{m.stage}/{m.key}", m.started[:19], m.seconds, m.peak_mb, m.code, _measured(m)) for m in made
        ],
        seconds=sum(m.seconds for m in made),
        peak=max(m.peak_mb for m in made),
        hosts=_different(m.host for m in made),
        machines=_different(m.machine for m in made),
        codes=_different(m.code for m in made),
        costs=costs,
    )
    return page.replace(SLOT, told)


def _measured(told: Manifest) -> str:
    return "; ".join(f"{name}: {value:.3g}" for name, value in told.measured.items())


def _different(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


__all__ = ["SLOT", "address", "ancestors", "rows", "versions", "with_times"]
