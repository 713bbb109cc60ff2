"""How a run came to be, as HTML: a box for each stage, right of what it was made from, and the record of each."""

import json
from collections.abc import Sequence

from stillroom.conversation.visible import shortened
from stillroom.store import Manifest, Store
from stillroom.studio.holdings import depths, name_of
from stillroom.studio.pictures import escaped

BOX = (184, 30)
"""Width and height of a stage, in pixels."""
STEP = (220, 38)
"""From one box to the next, across and down."""
LONGEST = 20000
"""Characters of a record."""


def lineage(store: Store, made: Sequence[Manifest]) -> str:
    """`made` has parents before children."""
    rows = "".join(_record(store, manifest) for manifest in reversed(made))
    return f"<div class='graph'>{_graph(made)}</div><h3>How each came to be</h3>{rows}"


def _graph(made: Sequence[Manifest]) -> str:
    at, (width, height) = _places(made), BOX
    lines = [
        f'<path d="M{x} {y + height // 2} C{x - 30} {y + height // 2} {left + 30} {top} {left} {top}"/>'
        for child, parents in closest(made).items()
        for x, y in [at[child]]
        for left, top in ((at[parent][0] + width, at[parent][1] + height // 2) for parent in parents)
    ]
    boxes = [
        f'<g transform="translate({x},{y})"><title>{escaped(name_of(manifest))}</title>'
        f'<rect width="{width}" height="{height}" rx="4"/>'
        f'<text x="8" y="19">{escaped(shortened(manifest.name, 30))}</text></g>'
        for manifest in made
        for x, y in [at[name_of(manifest)]]
    ]
    wide, high = (max(place[axis] for place in at.values()) + BOX[axis] + 2 for axis in (0, 1))
    label = 'role="img" aria-label="lineage: each stage and what it was made from"'
    return (
        f'<svg viewBox="0 0 {wide} {high}" style="min-width:{wide * 3 // 4}px" {label}>{"".join(lines + boxes)}</svg>'
    )


def closest(made: Sequence[Manifest]) -> dict[str, list[str]]:
    """The parents of each stage without those that it has through another parent as well: as few lines as tell it."""
    before: dict[str, set[str]] = {}
    found = {}
    for manifest in made:
        parents = [f"{parent.stage}/{parent.key}" for parent in manifest.parents.values()]
        known = [parent for parent in dict.fromkeys(parents) if parent in before]
        through = set().union(*(before[parent] for parent in known))
        found[name_of(manifest)] = [parent for parent in known if parent not in through]
        before[name_of(manifest)] = through | set(known)
    return found


def _places(made: Sequence[Manifest]) -> dict[str, tuple[int, int]]:
    """The upper left corner of each stage, a column for each depth."""
    taken: dict[int, int] = {}
    at = {}
    for name, column in depths(list(made)).items():
        at[name] = (1 + column * STEP[0], 1 + taken.get(column, 0) * STEP[1])
        taken[column] = taken.get(column, 0) + 1
    return at


def _record(store: Store, manifest: Manifest) -> str:
    told = {
        "made from": {role: f"{parent.stage}/{parent.key}" for role, parent in manifest.parents.items()},
        "config": manifest.config, "code": manifest.code, "started": manifest.started, "seconds": manifest.seconds,
        "peak MB": manifest.peak_mb, "host": manifest.host, "machine": manifest.machine,
        "libraries": manifest.libraries, "folder": str(store.folder(manifest.stage, manifest.key)),
    }  # fmt: skip
    summary = f"{escaped(manifest.name)} <small>{escaped(name_of(manifest))} · {manifest.seconds:.1f} s</small>"
    record = escaped(json.dumps(told, indent=1, ensure_ascii=False), LONGEST)
    return f"<details><summary>{summary}</summary><pre>{record}</pre></details>"
