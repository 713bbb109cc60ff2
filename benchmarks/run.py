"""The organism from end to end: wall time and peak memory of `stillroom run abacus`, of its reuse, and of `--help`.

    .venv/bin/python benchmarks/run.py [--quick]      (--quick runs abacus-small alone)

The last line printed is JSON; the exit code is 0 when every figure holds its bar.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib import metadata


def timed(*arguments: str, store: str) -> float:
    """Seconds of one call of the command line."""
    began = time.monotonic()
    environment = {**os.environ, "STILLROOM_STORE": store}
    subprocess.run([sys.executable, "-m", "stillroom", *arguments], env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def figure(name: str, value: float, unit: str, bar: float) -> dict[str, object]:
    return {"name": name, "value": round(value, 2), "unit": unit, "bar": bar, "holds": value <= bar}


def main() -> None:
    quick = "--quick" in sys.argv
    if os.getloadavg()[0] > 0.5:
        print(f"this machine is busy (load {os.getloadavg()[0]:.1f}): the times below are too long", file=sys.stderr)
    figures = [figure("help", min(timed("--help", store="none") for _ in range(5)), "s", 0.3)]
    with tempfile.TemporaryDirectory() as store:
        figures.append(figure("abacus-small", timed("run", "abacus-small", store=store), "s", 40))
    if not quick:
        with tempfile.TemporaryDirectory() as store:
            figures.append(figure("abacus", timed("run", "abacus", store=store), "s", 600))
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            figures.append(figure("abacus peak memory", peak, "MiB", 2500))
            figures.append(figure("abacus again", timed("run", "abacus", store=store), "s", 15))
    for row in figures:
        verdict = "holds" if row["holds"] else "MISSED"
        print(f"{row['name']:24}{row['value']:10} {row['unit']:4} bar {row['bar']:6} {verdict}")
    machine = {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
    versions = {name: metadata.version(name) for name in ("stillroom", "torch", "transformers")}
    print(json.dumps({"benchmark": "run", "figures": figures, "machine": machine, "versions": versions}))
    sys.exit(not all(row["holds"] for row in figures))


main()
