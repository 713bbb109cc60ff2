"""What is typed becomes a question or a command, and what comes of it a result, which is drawn or printed as JSON."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillroom.cli.app import refuse_name
from stillroom.conversation import KINDS, Change, Contrast, Conversation, Speaker, Turn, Way, counts
from stillroom.errors import DataError, UsageError, unknown
from stillroom.files import lines_atomic, resolved
from stillroom.oracle.asking import Reply

SUMMARY = "Summarize the thinking."


@dataclass(frozen=True)
class Spoken:
    turn: Turn
    oracle: Reply | None = None


@dataclass(frozen=True)
class Compared:
    turns: tuple[Turn, Turn]
    contrast: Contrast


@dataclass(frozen=True)
class Asked:
    query: str
    reply: Reply


@dataclass(frozen=True)
class Told:
    """What a command did, in a sentence, with what a machine may want of it."""

    sentence: str
    data: dict[str, Any]


Result = Spoken | Compared | Asked | Told


class Talk:
    """One conversation, driven line by line. `take` raises `StillroomError` for what cannot be done, and goes on."""

    def __init__(self, conversation: Conversation, opened: Callable[[str], Speaker], oracle: bool = False) -> None:
        self.conversation, self.opened, self.oracle = conversation, opened, oracle
        self.others: dict[str, Speaker] = {}

    def take(self, line: str) -> Result:
        """A question, or a command that begins with a slash."""
        if not line.startswith("/"):
            return self._spoken(self.conversation.ask(line))
        name, _, rest = line[1:].partition(" ")
        if name not in COMMANDS:
            raise UsageError(f"{unknown('command', '/' + name, ['/' + known for known in COMMANDS])}; see /help")
        return COMMANDS[name].run(self, rest.strip())

    def thoughts(self, count: str) -> Result:
        if not count:
            raise UsageError("/thoughts takes a number, or off, or own for as many as were taught")
        own = str(self.conversation.speaker.thoughts)
        return self._again(self.conversation.thoughts(own if count == "own" else count))

    def ablate(self, rest: str) -> Result:
        step, _, kind = rest.partition(" ")
        return self._again(self.conversation.change(Change(_step(step), kind.strip() or "zero")))

    def swap(self, rest: str) -> Result:
        step, _, other = rest.partition(" ")
        return self._again(self.conversation.change(Change(_step(step), "swap", other.strip())))

    def restore(self, _: str) -> Result:
        return self._again(self.conversation.restore())

    def compare(self, name: str) -> Result:
        if not name:
            raise UsageError("/compare takes another model: a folder, or a name in the store such as student/3f2a")
        if name not in self.others:
            self.others[name] = self.opened(name)
        mine, theirs, contrast = self.conversation.compare(self.others[name])
        return Compared((mine, theirs), contrast)

    def ask(self, query: str) -> Result:
        return Asked(query or SUMMARY, self.conversation.ask_oracle(query or SUMMARY))

    def save(self, name: str) -> Result:
        """Write the turns to a new JSON-lines file. Raises `UsageError` or `DataError` where the name will not do."""
        if not name:
            raise UsageError("/save takes the name of a file, such as conversation.jsonl")
        refuse_name(name)
        turns = self.conversation.turns
        try:
            path = Path(name).expanduser()
        except RuntimeError:
            raise UsageError(f"/save {name}: no such user is known here; name a file by its whole path") from None
        if path.exists():
            raise DataError(f"{path} exists; name another file")
        if not resolved(path).parent.is_dir():
            raise DataError(f"{path} stands in a folder that does not exist; name a file in one that does")
        with lines_atomic(path) as add:
            for turn in turns:
                add(asdict(turn))
        return Told(f"{len(turns)} turns are in {path}", {"saved": str(path), "turns": len(turns)})

    def help(self, _: str) -> Result:
        """The commands, and what can stand in for a thought."""
        usage = {f"/{name} {command.takes}".strip(): command.does for name, command in COMMANDS.items()}
        width = max(map(len, usage)) + 2
        kinds = [f"  {name:<{width - 2}}{what}" for name, what in KINDS.items()]
        lines = [
            *(f"{name:<{width}}{does}" for name, does in usage.items()),
            "what can stand in for a thought:",
            *kinds,
        ]
        return Told("\n".join(lines), {"help": usage, "kinds": dict(KINDS)})

    def quit(self, _: str) -> Result:
        raise EOFError

    def _spoken(self, turn: Turn) -> Spoken:
        return Spoken(turn, self.conversation.ask_oracle(SUMMARY) if self.oracle else None)

    def _again(self, turn: Turn | None) -> Result:
        if turn is not None:
            return self._spoken(turn)
        return Told(f"from here on: {way_told(self.conversation.way)}", {"way": asdict(self.conversation.way)})


def _step(text: str) -> int:
    if not counts(text):
        raise UsageError(f"{text[:40]!r}: which thought? They count from 0, as in /ablate 2 zero")
    return int(text)


def way_told(way: Way) -> str:
    count = "its own number of thoughts" if not way.thoughts else f"thoughts {way.thoughts}"
    return ", ".join([count, *(f"thought {change.step} replaced by {change.kind}" for change in way.changes)])


@dataclass(frozen=True)
class Command:
    takes: str
    does: str
    run: Callable[[Talk, str], Result]


COMMANDS = {
    "thoughts": Command("N", "think N thoughts, or off, or own; the last question is asked again", Talk.thoughts),
    "ablate": Command("I [KIND]", "replace thought I, by zero or another kind (below)", Talk.ablate),
    "swap": Command("I [QUESTION]", "replace thought I by that about another question", Talk.swap),
    "restore": Command("", "give all thoughts back", Talk.restore),
    "compare": Command("OTHER", "ask another model the same question", Talk.compare),
    "ask": Command("QUERY", "ask the oracle about the thoughts, which are then left alone", Talk.ask),
    "save": Command("FILE", "write the conversation to a new file, one JSON line a turn", Talk.save),
    "help": Command("", "this", Talk.help),
    "quit": Command("", "leave (or Ctrl-D)", Talk.quit),
}  # fmt: skip


def plain(result: Result) -> dict[str, Any]:
    """What a machine is given of a result."""
    match result:
        case Spoken(turn, oracle):
            return {**asdict(turn), **({"oracle": asdict(oracle)} if oracle else {})}
        case Compared(turns, contrast):
            return {"compared": [asdict(turn) for turn in turns], **asdict(contrast)}
        case Asked(query, reply):
            return {"query": query, **asdict(reply)}
        case Told(_, data):
            return data
