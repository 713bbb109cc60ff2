"""Two ways to drive a conversation: from a pipe, where every line gives one JSON line, and at a terminal."""

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress

from rich.console import Console
from rich.text import Text

from stillroom.cli.drawing import drawn
from stillroom.cli.talking import Talk, plain
from stillroom.conversation.visible import visible
from stillroom.errors import StillroomError, sentence

LEFT = "the conversation ends here; /save FILE would have kept it"


def in_a_pipe(talk: Talk, lines: Iterable[str], emit: Callable[[str], None]) -> int:
    """One JSON line for each line that is not blank; the exit code is 1 where one of them could not be done."""
    code = 0
    with suppress(EOFError):
        for line in lines:
            if line.strip():
                try:
                    said = plain(talk.take(line.strip()))
                except (StillroomError, OSError) as error:
                    said, code = {"error": sentence(error)}, 1
                emit(json.dumps(said))
                sys.stdout.flush()
    return code


def at_a_terminal(talk: Talk) -> int:
    """Until Ctrl-D, or Ctrl-C where nothing is being answered; there it ends the answer alone."""
    with suppress(ImportError):
        import readline  # noqa: F401  # line editing and history, where the system has it
    console = Console(highlight=False, soft_wrap=False)
    speaker = talk.conversation.speaker
    kind = f"thinks {speaker.thoughts} thoughts" if speaker.thoughts else "reasons in words"
    console.print(Text(f"{visible(speaker.label)} {kind}. /help tells what can be asked; Ctrl-D leaves.", style="dim"))
    while True:
        try:
            line = input("› " if console.encoding.startswith("utf") else "> ").strip()
        except (EOFError, KeyboardInterrupt) as left:
            console.print(Text(f"\n{LEFT if talk.conversation.turns else 'nothing was asked'}", style="dim"))
            return 130 if isinstance(left, KeyboardInterrupt) else 0
        if not line:
            continue
        try:
            with console.status("thinking"):
                result = talk.take(line)
            console.print(drawn(result, console))
        except EOFError:
            return 0
        except KeyboardInterrupt:
            console.print(Text("stopped: this answer is left out", style="dim"))
        except (StillroomError, OSError) as error:
            console.print(Text(visible(sentence(error)), style="red"))
