"""All benchmarks, one after another, and what they measured in one file: `make bench`.

    .venv/bin/python benchmarks [--full] [-o FILE]

Each runs with `--quick`, but for `run.py`, which is what `make run` does; `--full` runs all at full length, as one's
own script does. `run.py` comes first: others look at its `abacus-small`. `FILE` (bench.json) gets a line of JSON for
each; the exit code is 0 when every figure holds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import SMALL

HERE = Path(__file__).parent
FIRST = "run"


def lines(script: Path, store: str, *options: str) -> tuple[list[str], int]:
    """What a script prints, passed on as it comes, and its exit code."""
    printed = []
    call, environment = [sys.executable, str(script), *options], {**os.environ, SMALL: store}
    with subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if not line.startswith("{"):
                print(f"  {line}", end="", flush=True)
    return printed, process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench.json"))
    asked = parser.parse_args()
    missed, results = [], []
    scripts = [path for path in HERE.glob("*.py") if path.stem not in {"__main__", "figures"}]
    with tempfile.TemporaryDirectory() as store:
        for script in sorted(scripts, key=lambda path: (path.stem != FIRST, path.stem)):
            print(script.stem, flush=True)
            began = time.monotonic()
            printed, code = lines(script, store, *([] if asked.full or script.stem == FIRST else ["--quick"]))
            print(f"  {time.monotonic() - began:.0f} s", flush=True)
            results += [line for line in printed[-1:] if line.startswith("{")]
            missed += [script.stem] if code else []
    asked.output.write_text("".join(results))
    print(
        f"{len(results)} benchmarks in {asked.output}; " + (f"not held: {', '.join(missed)}" if missed else "all hold")
    )
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
