"""A conversation with a student: what was asked, how it is asked now, and every intervention on its thoughts.

It knows no terminal and no web page: `stillroom chat` and the studio are two doors to it.
"""

from pathlib import Path

from stillroom.conversation.speaking import NEW_TOKENS, Speaker, contrast
from stillroom.conversation.turns import KINDS, Change, Contrast, Shown, Turn, Way
from stillroom.errors import UsageError
from stillroom.evaluation import Given, spaced
from stillroom.evaluation.models import open_model, settled
from stillroom.evaluation.thinking import counts
from stillroom.files import read_json, read_lines
from stillroom.oracle import asking, readers
from stillroom.oracle.asking import Reply
from stillroom.records import Problem
from stillroom.store import MANIFEST
from stillroom.tasks import TEST

__all__ = [
    "KINDS", "Change", "Contrast", "Conversation", "Shown", "Speaker", "Turn", "Way", "contrast", "counts",
    "open_speaker",
]  # fmt: skip
COMPANY = 64
"""So many test problems of its own run are what a thought's mean is taken over."""


class Conversation:
    """With one student. Every question stands alone: a student sees none that was asked before."""

    def __init__(self, speaker: Speaker, keep: int | None = None) -> None:
        """Of its turns the last `keep` are kept."""
        self.speaker, self.keep, self.way = speaker, keep, Way()
        self.turns: list[Turn] = []

    @property
    def last(self) -> Turn:
        if not self.turns:
            raise UsageError("nothing was asked yet: ask a question first")
        return self.turns[-1]

    def ask(self, question: str, way: Way | None = None) -> Turn:
        """In this way from here on. Raises as `Speaker.say` does; then the conversation is as it was."""
        chosen = way or self.way
        turn = self.speaker.say(question, chosen, self._earlier())
        self.way, self.turns = chosen, [*self.turns, turn][-(self.keep or 0) :]
        return turn

    def turn_to(self, way: Way) -> Turn | None:
        """In this way from here on; the last question is asked again, if there is one. Raises `UsageError` for a way
        that cannot be gone."""
        if self.turns:
            return self.ask(self.last.question, way)
        self.speaker.check(way)
        self.way = way
        return None

    def thoughts(self, count: str) -> Turn | None:
        """So many thoughts, or `off`; changes to thoughts that are no longer thought are dropped."""
        kept = [change for change in self.way.changes if counts(count) and change.step < int(count)]
        return self.turn_to(Way(count, tuple(kept)))

    def change(self, change: Change) -> Turn | None:
        """Raises `UsageError` for a student without thoughts, or without this one."""
        return self.turn_to(self.way.changed(change))

    def restore(self) -> Turn | None:
        """All thoughts are its own again."""
        return self.turn_to(Way(self.way.thoughts))

    def compare(self, other: Speaker) -> tuple[Turn, Turn, Contrast]:
        """The last turn, the other student's on the same question, and what sets them apart."""
        theirs = other.say(self.last.question, Way(self.way.thoughts if other.thoughts else ""))
        return self.last, theirs, contrast(self.last, theirs)

    def ask_oracle(self, query: str) -> Reply:
        """What a reader says of the thoughts about the last question, as they are when nothing is replaced."""
        return self.speaker.ask_oracle(self.last.question, query)

    def _earlier(self) -> list[str]:
        return list(dict.fromkeys(turn.question for turn in self.turns))


def open_speaker(
    folder: str, root: Path, reader: Path | None = None, device: str = "cpu", new_tokens: int = NEW_TOKENS
) -> Speaker:
    """Open a student, or any model that can be asked. Raises `DataError` for what is none.

    `root` is the store in which its reader is looked for, unless one is named.
    """
    given = settled(Given(source=folder))
    student = open_model(given, device)

    def find() -> readers.Reader:
        return readers.load(reader, device) if reader else asking.find_reader(root, student, device)

    return Speaker(given.label, student, _company(Path(folder)), find, new_tokens)


def _company(folder: Path) -> list[str]:
    """Test questions of the run that made a student; none for a folder outside a store."""
    if not (folder / MANIFEST).is_file():
        return []
    parents = read_json(folder / MANIFEST)["parents"]
    if "problems" not in parents:
        return []
    file = folder.resolve().parent.parent / "problems" / parents["problems"]["key"] / f"{TEST}.jsonl"
    return [problem.question for problem in spaced(read_lines(file, Problem), COMPANY)] if file.is_file() else []
