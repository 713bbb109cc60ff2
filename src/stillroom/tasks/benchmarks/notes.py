"""What was mended, kept in spite of a defect, or refused while a file was read; told in the stage's `notes.json`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from stillroom.progress import say
from stillroom.records import Problem

SHOWN = 5
Fate = Literal["mended", "kept", "refused"]


class Refused(Exception):
    """This row becomes no problem; the message says why."""


@dataclass
class Notes:
    """The notes on one file. `taught`: whether students learn from it."""

    taught: bool
    line: int = 0
    rows: int = 0
    problems: int = 0
    fates: dict[Fate, dict[str, list[int]]] = field(default_factory=dict)
    """From fate and reason to line numbers, each line once."""

    def add(self, fate: Fate, reason: str) -> None:
        lines = self.fates.setdefault(fate, {}).setdefault(reason, [])
        if not lines or lines[-1] != self.line:
            lines.append(self.line)

    def mended(self, reason: str) -> None:
        self.add("mended", reason)

    def doubtful(self, reason: str) -> None:
        """A row that cannot be mended: refused where students would learn from it, and kept elsewhere, so
        that scores stay comparable with published ones."""
        if self.taught:
            raise Refused(reason)
        self.add("kept", reason)

    def summary(self) -> dict[str, Any]:
        fates: dict[str, Any] = {
            fate: {reason: {"rows": len(lines), "first_lines": lines[:SHOWN]} for reason, lines in reasons.items()}
            for fate, reasons in self.fates.items()
        }
        return {"rows": self.rows, "problems": self.problems, **fates}

    def sentence(self) -> str:
        told = [f"{len(lines)} {fate} ({reason})" for fate, why in self.fates.items() for reason, lines in why.items()]
        return "; ".join([f"{self.problems} problems of {self.rows} rows", *told])


class Splits(dict[str, list[Problem]]):
    """Splits that come with the notes on each file that they were read from."""

    def __init__(self, splits: dict[str, list[Problem]], notes: dict[str, Notes]) -> None:
        super().__init__(splits)
        self.notes = notes

    def tell(self) -> dict[str, Any]:
        """The notes as JSON; each file with a note is said aloud as well."""
        for name, notes in self.notes.items():
            if notes.fates:
                say(f"  {name}: {notes.sentence()}")
        return {name: notes.summary() for name, notes in self.notes.items()}
