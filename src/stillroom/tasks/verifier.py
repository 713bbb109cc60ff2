"""The child process of `workers.py`: a line `["gold", "answer"]` in, `true` or `false` out. Run it with `python -m`."""

import faulthandler
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

MEMORY = 3 * 2**30
"""Bytes of address space; what needs more is not an answer."""


def main(seconds: float) -> None:
    limit_memory()
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    latex = [LatexExtractionConfig(boxed_match_priority=-1)]

    def same(gold: str, answer: str) -> bool:
        sides = [
            parse(f"${side}$", latex, fallback_mode="no_fallback", parsing_timeout=None) for side in (gold, answer)
        ]
        return bool(verify(*sides, timeout_seconds=None, allow_set_relation_comp=True))

    same("1/2", "0.5")  # the grammar is built at the first call
    answer_all(seconds, same)


def answer_all(seconds: float, same: Callable[[str, str], bool]) -> None:
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in sys.stdin:
            gold, answer = json.loads(line)
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            try:
                reply = same(gold, answer)
            except (Exception, RecursionError):
                reply = False
            faulthandler.cancel_dump_traceback_later()
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()


def limit_memory() -> None:
    """Where the system can (not on Windows, and macOS ignores it)."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    main(float(sys.argv[1]))
