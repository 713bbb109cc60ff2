"""Talking from a pipe and at a real pseudo-terminal: one JSON line a turn, colours, a new width, Ctrl-C."""

import codecs
import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.color import Color, ColorSystem
from rich.console import Console

import toys
from conversation_toys import QUESTIONS, speaker
from stillroom import students
from stillroom.cli.app import student_folder
from stillroom.cli.drawing import COARSE, SIGNS, drawn, heat
from stillroom.cli.talking import COMMANDS, Talk, plain
from stillroom.cli.terminal import at_a_terminal, in_a_pipe
from stillroom.conversation import Conversation, Speaker
from stillroom.errors import StoreError, UsageError
from stillroom.students import Manner
from stillroom.students.folders import Thoughts

ASKED = QUESTIONS[0]
EVIL = "[bold red]bold[/] [/nothing] \x1b[2J\x1b]0;mine\x07 \u202eback"
SHOWN = "[bold red]bold[/] [/nothing] \\x1b[2J\\x1b]0;mine\\x07 \\u202eback"


def talk(one: Speaker | None = None) -> Talk:
    return Talk(Conversation(one or speaker()), lambda name: speaker(name=name))


def piped(*lines: str, one: Speaker | None = None) -> tuple[list[dict[str, object]], int]:
    said: list[str] = []
    code = in_a_pipe(talk(one), [f"{line}\n" for line in lines], said.append)
    return [json.loads(line) for line in said], code


def lines(result: str, width: int = 90, **settings: object) -> str:
    """What a terminal of this width is sent for the last of these lines."""
    ours = talk()
    *before, last = result.split(";")
    for line in before:
        ours.take(line)
    console = Console(width=width, force_terminal=True, highlight=False, **settings)  # type: ignore[arg-type]
    with console.capture() as sent:
        console.print(drawn(ours.take(last), console))
    return sent.get()


def bare(sent: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sent).replace("\r", "").split("\n")


def test_each_line_of_a_pipe_gives_one_json_line() -> None:
    said, code = piped(ASKED, "", "/ablate 1 zero", "/compare twin", "/thoughts off", "/restore", "/help")
    assert code == 0
    assert len(said) == 6
    assert said[0]["question"] == said[1]["question"] == ASKED
    assert said[1]["way"] == {"thoughts": "", "changes": [{"step": 1, "kind": "zero", "other": ""}]}
    assert said[1]["undisturbed"] == said[0]["answer"]
    assert [turn["student"] for turn in said[2]["compared"]] == ["toy", "twin"]  # type: ignore[attr-defined]
    assert said[3]["thoughts"] == []
    assert {name.split()[0] for name in said[5]["help"]} == {f"/{name}" for name in COMMANDS}  # type: ignore[attr-defined]


def test_what_cannot_be_done_is_a_line_too_and_the_next_is_answered() -> None:
    wrong = ("/ask", "/bogus", "/ablate x", "/ablate 9", "/thoughts 1e3", "/compare", "/save", "eggs " * 20_000)
    said, code = piped(*wrong, ASKED, "/quit", ASKED)
    assert code == 1
    assert [list(line) == ["error"] for line in said] == [True] * len(wrong) + [False]


def test_no_name_or_number_ends_a_conversation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What no file system takes, no user has and no number is, and a disk that is full."""
    monkeypatch.chdir(tmp_path)
    long, digits = "n" * 5000, "9" * 5000
    (tmp_path / "ring").symlink_to("ring")
    wrong = (
        f"/save {long}", "/save ~nouserhere/x", "/save a\0b", "/save /proc/x", "/save ring/x", f"/compare {long}",
        "/compare a\0b", f"/ablate {digits}", f"/swap {digits}", f"/thoughts {digits}",
    )  # fmt: skip
    ours = talk()
    ours.opened = lambda name: speaker(name=str(student_folder(name)))
    said: list[str] = []
    assert in_a_pipe(ours, [f"{line}\n" for line in (ASKED, *wrong, ASKED)], said.append) == 1
    kept = [json.loads(line) for line in said]
    assert [list(line) == ["error"] for line in kept] == [False] + [True] * len(wrong) + [False]
    assert all("Error" not in line["error"] and len(line["error"]) < 6000 for line in kept[1:-1])
    assert [str(student_folder(name)) for name in ("/nowhere", "**x")] == ["/nowhere", "**x"]


def test_a_name_that_only_the_store_could_have_is_not_looked_for_on_the_hub(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLROOM_STORE", str(tmp_path / "stills"))
    for slip in ("student/3f2a", "student/zebra", "0123456789abcdef"):
        with pytest.raises(UsageError, match=r"no folder of the store .*stills begins so: `stillroom list`"):
            student_folder(slip)
    for key in ("3f2a", "3f2b"):
        (tmp_path / "stills" / "student" / key).mkdir(parents=True)
    with pytest.raises(UsageError, match=r"the beginning of 2 folders of the store \(student/3f2a, student/3f2b\)"):
        student_folder("student/3f")
    assert student_folder("student/3f2b") == Path(tmp_path / "stills/student/3f2b")
    with pytest.raises(UsageError, match=r"\./none: there is no such folder here"):
        student_folder("./none")
    assert [str(student_folder(name)) for name in ("students/zebra", "./stills")] == ["students/zebra", "stills"]
    (tmp_path / "stills" / "student" / "3f2b" / "student.json").write_text("{}")
    with pytest.raises(StoreError, match=r"student/3f2b: it has no manifest\.json, so it was never finished"):
        student_folder("student/3f2b")


def test_a_full_disk_does_not_end_the_conversation_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["/save full", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "full")

    monkeypatch.setattr("stillroom.cli.talking.lines_atomic", full)
    assert at_a_terminal(talk()) == 0


def test_what_a_pipe_prints_is_ascii_so_that_it_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[str] = []
    in_a_pipe(talk(), [EVIL], sent.append)
    assert sent[0].isascii()
    assert "\x1b" not in sent[0]
    assert json.loads(sent[0])["question"] == EVIL.strip()
    assert capsys.readouterr().out == ""


def test_a_conversation_is_saved_whole_and_nothing_is_overwritten(tmp_path: Path) -> None:
    ours, file = talk(), tmp_path / "said.jsonl"
    ours.take(ASKED)
    ours.take("/swap 0 " + QUESTIONS[1])
    assert plain(ours.take(f"/save {file}")) == {"saved": str(file), "turns": 2}
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [turn["way"]["changes"] for turn in kept] == [[], [{"step": 0, "kind": "swap", "other": QUESTIONS[1]}]]
    with pytest.raises(Exception, match="exists; name another"):
        ours.take(f"/save {file}")
    with pytest.raises(Exception, match="does not exist"):
        ours.take(f"/save {tmp_path / 'nowhere' / 'x'}")


def test_a_ring_of_links_gives_way_to_what_is_saved(tmp_path: Path) -> None:
    """`Path.resolve` raises `RuntimeError` of one, at which the conversation would be lost."""
    ours, ring = talk(), tmp_path / "ring"
    ring.symlink_to(ring)
    ours.take(ASKED)
    assert plain(ours.take(f"/save {ring}")) == {"saved": str(ring), "turns": 1}
    assert len(ring.read_text().splitlines()) == 1


def test_the_oracle_is_missed_where_none_was_taught() -> None:
    ours = talk()
    ours.take(ASKED)
    with pytest.raises(UsageError, match="no reader"):
        ours.take("/ask Which step matters most?")


def test_heat_is_blue_red_and_grey_and_without_colour_it_is_signs() -> None:
    coloured = heat([-1.0, 0.0, 1.0, 0.0], 10, 1.0, colours=True)
    assert [str(span.style) for span in coloured.spans] == [
        "rgb(33,92,175) on rgb(200,200,200)", "rgb(190,24,43) on rgb(200,200,200)",
    ]  # fmt: skip
    assert heat([-1.0, -0.4, 0.0, 0.4, 1.0], 10, 1.0, colours=False).plain == "M-·+P"
    assert "38;2;" in lines(ASKED, color_system="truecolor")
    exact = [Color.from_rgb(*rgb).downgrade(ColorSystem.EIGHT_BIT).get_truecolor() for rgb in COARSE]
    assert [tuple(rgb) for rgb in exact if len(set(rgb)) > 1] == [rgb for rgb in COARSE if len(set(rgb)) > 1]
    sent = lines(ASKED, color_system="256")
    assert not re.search(r"\x1b\[[0-9;]*[34]8;2;", sent)
    known = {str(Color.from_rgb(*rgb).downgrade(ColorSystem.EIGHT_BIT).number) for rgb in COARSE}
    assert set(re.findall(r"[34]8;5;(\d+)", sent)) <= known
    for settings in ({"color_system": None}, {"no_color": True}):
        sent = lines(ASKED, **settings)
        assert not re.search(r"\x1b\[[0-9;]*[34]8;", sent)
        assert SIGNS in "".join(bare(sent))


@pytest.mark.parametrize("width", [30, 60, 140])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for asked in (ASKED, f"{ASKED};/ablate 1 skip", f"{ASKED};/compare twin", "/help"):
        assert max(map(len, bare(lines(asked, width, color_system="truecolor")))) <= width


def test_markup_and_control_characters_of_a_model_are_shown_as_they_are() -> None:
    one = speaker()
    one.student.tokenizer.decode = lambda *_, **__: EVIL  # type: ignore[method-assign, assignment]
    one.student.tokenizer.batch_decode = lambda rows, **_: [EVIL] * len(rows)  # type: ignore[method-assign, assignment]
    ours = talk(one)
    console = Console(width=200, force_terminal=True, color_system=None, highlight=False)
    with console.capture() as sent:
        console.print(drawn(ours.take(EVIL), console))
    shown = sent.get()
    assert SHOWN in shown
    assert "\x1b[2J" not in shown
    assert "\x1b]0;" not in shown
    assert "\u202e" not in shown


DRIVER = """
import fcntl, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from stillroom import cli
from stillroom.conversation import Speaker
say = Speaker.say
def long(self, question, *more):
    if question != "slow":
        return say(self, question, *more)
    print("answering", flush=True)
    time.sleep(60)
Speaker.say = long
sys.argv = ["stillroom", "chat", sys.argv[1], "--new-tokens", "8", "--device", "cpu"]
cli.main()
"""


class Terminal:
    """The command in a pseudo-terminal of its own."""

    def __init__(self, folder: Path, columns: int) -> None:
        self.sent = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character
        self.ours, theirs = pty.openpty()
        self.size(columns)
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "OMP_NUM_THREADS": "1"}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(folder)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def size(self, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def read(self, wanted: str) -> bytes:
        try:
            return os.read(self.ours, 1 << 16)
        except OSError:  # how a pseudo-terminal says that nobody holds its other end
            raise AssertionError(f"it ended before {wanted!r} came: {self.sent[-2000:]!r}") from None

    def until(self, wanted: str, seconds: float = 120) -> str:
        """What is sent up to the first place where this stands."""
        end = time.monotonic() + seconds
        while wanted not in self.sent:
            if time.monotonic() > end:
                raise TimeoutError(f"{wanted!r} did not come: {self.sent[-2000:]!r}")
            if select.select([self.ours], [], [], 1)[0]:
                self.sent += self.decoder.decode(self.read(wanted))
        before, _, self.sent = self.sent.partition(wanted)
        return before

    def interrupted(self, wanted: str) -> str:
        """Ctrl-C until this comes: one that meets readline between two waits is not seen before the next."""
        for _ in range(20):
            self.type("\x03")
            with contextlib.suppress(TimeoutError):
                return self.until(wanted, 6)
        raise AssertionError(f"no Ctrl-C brought {wanted!r}")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    student = toys.student()
    thinks = Manner(thoughts=Thoughts(count=2, begin="Ann", end=" has", projected=False))
    students.save(students.Student(student.model, student.tokenizer, thinks), tmp_path)
    made = Terminal(tmp_path, 100)
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait()
    os.close(made.ours)


def test_at_a_terminal(terminal: Terminal) -> None:
    """Colours, a width that changes, Ctrl-C while it answers and while it waits."""
    assert "thinks 2 thoughts" in terminal.until("› ")
    terminal.type(f"{ASKED}\n")
    wide = terminal.until("after ") + terminal.until("› ")
    assert re.search(r"\x1b\[38;2;\d+;\d+;\d+;48;2;\d+;\d+;\d+m▀", wide)
    numbers = [line for line in bare(wide) if "norm " in line]
    assert max(map(len, numbers)) > 60

    terminal.size(50)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.type("/ablate 0 zero\n")
    narrow = bare(terminal.until("after ") + terminal.until("› "))
    assert any("norm 0" in line for line in narrow)
    assert max(len(line) for line in narrow if "norm " in line or "near 0" in line) <= 50

    terminal.type("slow\n")
    begun = terminal.until("answering")  # a Ctrl-C while the line that says "thinking" is set up may go amiss
    terminal.type("\x03")
    begun += terminal.until("this answer is left out")
    assert "thinking" in begun
    assert "Traceback" not in begun + terminal.until("› ")
    last = terminal.interrupted("the conversation ends here")
    assert "Traceback" not in last
    assert terminal.process.wait(60) == 130
