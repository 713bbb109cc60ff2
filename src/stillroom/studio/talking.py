"""What one visitor's chat does: students side by side, each in a conversation of its own. It knows no page."""

from collections.abc import Sequence

from stillroom.conversation import Change, Conversation, Turn, Way
from stillroom.errors import StillroomError, UsageError
from stillroom.oracle.asking import Reply
from stillroom.store import Store
from stillroom.studio.holdings import students
from stillroom.studio.speakers import Speakers

MOST = 4
"""Students side by side."""
KEEP = 10
"""Turns of each conversation that are kept, for swaps."""

Shown = list[tuple[str, Turn | str]]
"""Each student with its last turn, or with what went wrong."""


class Visit:
    """One visitor's chat. What one student cannot do is told in its place, and keeps no other from answering."""

    def __init__(self, store: Store, speakers: Speakers) -> None:
        self.store, self.speakers = store, speakers
        self.run, self.conversations = "", dict[str, Conversation]()

    def choose(self, run: str, names: Sequence[str]) -> None:
        """These students of this run; conversations that go on keep what was said. Raises `UsageError` for none, too
        many, or one that the run does not have."""
        if not 1 <= len(names) <= MOST:
            raise UsageError(f"{len(names)} students are chosen: choose 1 to {MOST}")
        folders = students(self.store, run)
        missing = [name for name in names if name not in folders]
        if missing:
            raise UsageError(f"{run} has no student {missing[0]!r}: choose among {', '.join(folders)}")
        going = self.conversations if run == self.run else {}
        self.run = run
        self.conversations = {
            name: going.get(name) or Conversation(self.speakers.of(folders[name]), KEEP) for name in names
        }

    def ask(self, question: str, thoughts: str) -> Shown:
        """All of them, those that think after so many thoughts (a number, `off`, or empty for their own)."""
        return [(name, self._ask(name, question, thoughts)) for name in self.conversations]

    def _ask(self, name: str, question: str, thoughts: str) -> Turn | str:
        conversation = self.conversations[name]
        try:
            turns = conversation.speaker.thoughts and thoughts != conversation.way.thoughts
            return conversation.ask(question, Way(thoughts) if turns else None)
        except StillroomError as error:
            return str(error)

    def replace(self, place: int, step: int, kind: str) -> Shown:
        """Replace one thought of the student in this place; one that is replaced in this way gets its own back."""
        name = list(self.conversations)[place]
        conversation = self.conversations[name]
        change = Change(step, kind)
        way = conversation.way
        kept = tuple(one for one in way.changes if one != change)
        try:
            conversation.turn_to(Way(way.thoughts, kept) if change in way.changes else way.changed(change))
        except StillroomError as error:
            return self.shown({name: str(error)})
        return self.shown()

    def restore(self) -> Shown:
        """Give all students all their thoughts back."""
        for conversation in self.conversations.values():
            if conversation.way.changes:
                conversation.restore()
        return self.shown()

    def shown(self, wrong: dict[str, str] | None = None) -> Shown:
        """Everybody's last turn, or what went wrong."""
        told = wrong or {}
        return [
            (name, told.get(name) or (one.turns[-1] if one.turns else "nothing was asked yet"))
            for name, one in self.conversations.items()
        ]

    def ask_oracle(self, query: str) -> list[tuple[str, Reply | str]]:
        """What the readers say of the thoughts of all students that think."""
        found: list[tuple[str, Reply | str]] = []
        for name, conversation in self.conversations.items():
            if conversation.speaker.thoughts:
                try:
                    found.append((name, conversation.ask_oracle(query)))
                except StillroomError as error:
                    found.append((name, str(error)))
        if not found:
            raise UsageError("none of the chosen students thinks in vectors: choose one that does, then ask it")
        return found
