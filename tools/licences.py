"""The licences of what Stillroom needs, as the installed packages state them: `docs/licences.md`.

    python tools/licences.py > docs/licences.md

Reads the metadata of the packages that are installed, from the requirements of `stillroom` on. What a package says is
copied, not judged; `unstated` is a package that says nothing in its metadata.
"""

import re
import sys
import tomllib
from collections import deque
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

HEAD = """# Licences of the dependencies

Made by `tools/licences.py` from the metadata of the packages that `pip install -e '.[dev]'` and the other extras
bring; a test compares the names. *core* comes with `pip install -e .`, the others with the extras that are
named. Licences are what the packages state of themselves.

| package | version | licence | comes with |
|---|---|---|---|
"""
PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(requirements: Iterable[str], extra: str = "") -> list[str]:
    """The packages of those requirements that hold on this machine, and `package[extra]` for the extras of theirs."""
    told = [
        one for one in map(Requirement, requirements) if one.marker is None or one.marker.evaluate({"extra": extra})
    ]
    return [f"{plain(one.name)}{more}" for one in told for more in ("", *(f"[{each}]" for each in sorted(one.extras)))]


def reached(start: list[str]) -> set[str]:
    """The packages that these bring, themselves included, as far as they are installed."""
    met, waiting = set[str](), deque(start)
    while waiting:
        one = waiting.popleft()
        name, _, extra = one.rstrip("]").partition("[")
        if one not in met and installed(name):
            met.add(one)
            waiting += needed(metadata.requires(name) or (), extra)
    return {one for one in met if "[" not in one}


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def licence(name: str) -> str:
    told = metadata.metadata(name)
    classified = [c.rpartition(" :: ")[2] for c in told.get_all("Classifier") or () if c.startswith("License ::")]
    text = told.get("License-Expression") or "; ".join(classified) or (told.get("License") or "").strip()
    first = text.splitlines()[0] if text else "unstated"
    return first if len(first) <= 80 else f"{first[:77]}..."


def table() -> list[tuple[str, str, str, str]]:
    """Name, version, licence and where it comes from, by name."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    asked = {"core": project["dependencies"], **project["optional-dependencies"]}
    groups = {of: reached(needed(lines)) for of, lines in asked.items()}
    rows = []
    for name in sorted(set.union(*groups.values())):
        told = ["core"] if name in groups["core"] else [extra for extra, held in groups.items() if name in held]
        rows.append((name, metadata.version(name), licence(name), ", ".join(told)))
    return rows


def main() -> None:
    rows = "".join(f"| {' | '.join(row)} |\n" for row in table())
    sys.stdout.write(HEAD + rows)


if __name__ == "__main__":
    main()
