"""The organism from end to end: wall time and peak memory of `make run`, of its reuse, and of `--help`.

    .venv/bin/python benchmarks/run.py [--quick]      (--quick: `--help` and abacus-small alone)

The last line printed is JSON; the exit code is 0 when every figure holds its bar.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time

import psutil
from figures import SMALL, at_most, close, told_load

RUN = ("run", "abacus", "--on", "ray")


class Peak(threading.Thread):
    """The largest sum of the memory of all processes below this one, each shared page counted once (PSS), in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib, self.ended = 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(2):
            held = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    held += process.memory_full_info().pss
                except psutil.Error:  # it has just ended
                    continue
            self.mib = max(self.mib, held / 2**20)


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
    with tempfile.TemporaryDirectory() as scratch:
        store = os.environ.get(SMALL) or scratch
        figures.append(at_most("abacus-small", timed("run", "abacus-small", store=store), "s", 40))
    if not quick:
        with tempfile.TemporaryDirectory() as store:
            peak = Peak()
            figures.append(at_most("abacus", timed(*RUN, store=store), "s", 900))
            peak.ended.set()
            figures.append(at_most("abacus peak memory", peak.mib, "MiB", 3072))
            figures.append(at_most("abacus again", timed("run", "abacus", store=store), "s", 15))
    close("run", figures, load, "torch", "transformers")


if __name__ == "__main__":
    main()
