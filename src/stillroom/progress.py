"""How long work tells of itself: a bar with rate and time left on a terminal, plain lines elsewhere (on stderr).

Of the processes of one run the first alone speaks.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

INTERVAL = 10.0
"""Seconds between two plain lines."""


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def say(message: str) -> None:
    """One plain line for the user, beside any bar."""
    if _first():
        print(message, file=sys.stderr, flush=True)  # noqa: T201


class Meter:
    """Counts units done; `advance` may be called as often as one likes."""

    def __init__(self, label: str, total: int, unit: str, start: int, bar: Progress | None) -> None:
        self.label, self.total, self.unit, self.done, self.bar = label, total, unit, start, bar
        self._first, self._began, self._told = start, time.monotonic(), time.monotonic()
        self._task = bar.add_task(label, total=total, completed=start, note="") if bar else None

    def advance(self, units: int = 1, note: str = "") -> None:
        """Count what was done; where there is no bar, a line is said at most every `INTERVAL` seconds."""
        self.done += units
        rate = (self.done - self._first) / max(time.monotonic() - self._began, 1e-9)
        text = f"{rate:.1f} {self.unit}/s {note}"
        if self.bar is not None and self._task is not None:
            self.bar.update(self._task, completed=self.done, note=text)
        elif time.monotonic() - self._told >= INTERVAL:
            self._told = time.monotonic()
            left = (self.total - self.done) / max(rate, 1e-9)
            say(f"  {self.label}: {self.done}/{self.total} {text} {left:.0f} s left")


@contextmanager
def meter(label: str, total: int, unit: str = "it", start: int = 0) -> Iterator[Meter]:
    if not (sys.stderr.isatty() and _first()):
        yield Meter(label, total, unit, start, None)
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        yield Meter(label, total, unit, start, bar)
