"""A benchmark's figures beside their bars, how they are told, and the machine on which they were measured."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

SMALL = "STILLROOM_BENCH"
"""The variable that names the store in which all benchmarks share one run of `abacus-small`."""


class Figure(NamedTuple):
    name: str
    value: float
    unit: str
    bar: float
    holds: bool
    more: Mapping[str, Any] = {}
    """What else is known of it, for the JSON line."""


def at_least(name: str, value: float, unit: str, bar: float, **more: Any) -> Figure:
    return Figure(name, round(value, 3), unit, bar, value >= bar, more)


def at_most(name: str, value: float, unit: str, bar: float, **more: Any) -> Figure:
    return Figure(name, round(value, 3), unit, bar, value <= bar, more)


def small(scratch: Path) -> Path:
    """A store with a run of `abacus-small`: what $STILLROOM_BENCH names, where all benchmarks make it once for all of
    them, else `scratch`."""
    store = Path(os.environ.get(SMALL) or scratch)
    call = [sys.executable, "-m", "stillroom", "run", "abacus-small", "settings.device=cpu"]
    subprocess.run(call, env={**os.environ, "STILLROOM_STORE": str(store)}, check=True, capture_output=True)
    return store


def told_load() -> float:
    """The machine's load before the measurement; said aloud where it is high."""
    load = round(os.getloadavg()[0], 2)
    if load > 0.5:
        print(f"this machine is busy (load {load:.1f}): times are too long, ratios waver", file=sys.stderr)
    return load


def close(benchmark: str, figures: Sequence[Figure], load: float, *packages: str, **circumstances: Any) -> NoReturn:
    """Print every figure with its verdict and, last, all as one line of JSON; exit with 0 when every bar holds."""
    for row in figures:
        verdict = "holds" if row.holds else "MISSED"
        print(f"{row.name:44}{row.value:12} {row.unit:11} bar {row.bar:8} {verdict}")
    machine = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "load": load}
    versions = {name: metadata.version(name) for name in ("stillroom", *packages)}
    rows = [{**{k: v for k, v in row._asdict().items() if k != "more"}, **row.more} for row in figures]
    machine |= circumstances
    print(json.dumps({"benchmark": benchmark, "figures": rows, "machine": machine, "versions": versions}))
    sys.exit(not all(row.holds for row in figures))
