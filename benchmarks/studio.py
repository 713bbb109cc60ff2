"""The studio under ten visitors: how long an answer takes, and whether memory stays flat in the second half.

    .venv/bin/python benchmarks/studio.py [STORE] [--quick]      (--quick: 15 seconds, not 120)

`STORE` holds a run of `abacus-small` (else one is made). Each visitor is a client of its own, which asks the latent
student one question after another, after 6, 5 or 4 thoughts, as the page does. In the first half the allocator's
pools and ten turns of every conversation fill; what grows in the second is lost. Needs the extra `studio`.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from figures import at_most, close, small, told_load
from gradio_client import Client

VISITORS = 10
QUESTIONS = [
    f"Ann has {i} eggs. Ben gives {j} more. How many eggs does Ann have?" for i in range(9) for j in range(1, 4)
]
WARM = 0.5
"""The share of the time after which memory is expected to grow no more."""


def serve(store: Path) -> tuple[subprocess.Popen[str], str]:
    call = [sys.executable, "-m", "stillroom", "studio", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        call, env={**os.environ, "STILLROOM_STORE": str(store)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found is not None, "the studio did not start"
    return process, found[0]


def visit(address: str, run: str, number: int, end: float, took: list[float], failed: list[str]) -> None:
    """Ask until the time is over, as one visitor."""
    client = Client(address, verbose=False, analytics_enabled=False)
    client.predict(run, api_name="/students")  # as the page does when a run is chosen
    turn = number
    while time.monotonic() < end:
        began = time.monotonic()
        said = client.predict(run, ["latent"], QUESTIONS[turn % len(QUESTIONS)], str(6 - turn % 3), api_name="/ask")
        took.append(time.monotonic() - began)
        if "The answer is" not in said:
            failed.append(said)
        turn += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    seconds, load = 15 if asked.quick else 120, told_load()
    with tempfile.TemporaryDirectory() as scratch:
        store = asked.store or small(Path(scratch))
        run = f"report/{next(store.glob('report/*/manifest.json')).parent.name}"
        process, address = serve(store)
        took: list[float] = []
        failed: list[str] = []
        end = time.monotonic() + seconds
        visitors = [
            threading.Thread(target=visit, args=(address, run, number, end, took, failed)) for number in range(VISITORS)
        ]
        memory = []
        try:
            for visitor in visitors:
                visitor.start()
            while any(visitor.is_alive() for visitor in visitors):
                memory.append(psutil.Process(process.pid).memory_info().rss / 2**20)
                time.sleep(0.5)
        finally:
            process.terminate()
            process.wait()
    settled = memory[int(WARM * len(memory)) :]
    third = max(1, len(settled) // 3)
    grown = float(np.median(settled[-third:]) - np.median(settled[:third]))
    print(f"{len(took)} answers in {seconds} s, {len(failed)} failed; median {np.median(took):.2f} s")
    figures = [
        at_most("95 of 100 answers", float(np.quantile(took, 0.95)), "s", 2.0),
        at_most("answers that failed", len(failed), "", 0),
        at_most("memory grown in the second half", grown, "MiB", 20),
    ]
    close("studio", figures, load, "torch", "gradio", visitors=VISITORS, seconds=seconds, answers=len(took))


if __name__ == "__main__":
    main()
