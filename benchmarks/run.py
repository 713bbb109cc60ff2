"""The organism from end to end: wall time and peak memory of `stillroom run abacus`, of its reuse, and of `--help`.

    .venv/bin/python benchmarks/run.py [--quick]      (--quick runs abacus-small alone)

The last line printed is JSON; the exit code is 0 when every figure holds its bar.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time

from figures import at_most, close, told_load


def timed(*arguments: str, store: str) -> float:
    """Seconds of one call of the command line."""
    began = time.monotonic()
    environment = {**os.environ, "STILLROOM_STORE": store}
    subprocess.run([sys.executable, "-m", "stillroom", *arguments], env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def main() -> None:
    quick = "--quick" in sys.argv
    load = told_load()
    figures = [at_most("help", min(timed("--help", store="none") for _ in range(5)), "s", 0.3)]
    with tempfile.TemporaryDirectory() as store:
        figures.append(at_most("abacus-small", timed("run", "abacus-small", store=store), "s", 40))
    if not quick:
        with tempfile.TemporaryDirectory() as store:
            figures.append(at_most("abacus", timed("run", "abacus", store=store), "s", 900))
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            figures.append(at_most("abacus peak memory", peak, "MiB", 3072))
            figures.append(at_most("abacus again", timed("run", "abacus", store=store), "s", 15))
    close("run", figures, load, "torch", "transformers")


if __name__ == "__main__":
    main()
