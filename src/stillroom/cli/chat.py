"""Door to a conversation in a terminal: chat."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from stillroom.cli.app import app, emit, store_root, student_folder

if TYPE_CHECKING:
    from io import TextIOWrapper

    from stillroom.conversation import Speaker


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A student's folder, its name in the store, or any model.")],
    thoughts: Annotated[str, typer.Option(help="So many thoughts, or `off`; else as many as it was taught.")] = "",
    oracle: Annotated[bool, typer.Option("--oracle", help="A reader sums up the thoughts after every answer.")] = False,
    reader: Annotated[Path | None, typer.Option(help="A reader's folder; else the newest of the store.")] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 96,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a turn, as without a terminal.")] = False,
) -> None:
    """Talk with a student, see its thoughts, and change them: `/help` tells how.

    In a pipe (`stillroom chat student/3f2a < questions.txt`) each line that is read is a question or a command, and
    each line that is printed is JSON.

    Example: stillroom chat student/3f2a --thoughts 4
    """
    from stillroom.cli.talking import Talk
    from stillroom.cli.terminal import at_a_terminal, in_a_pipe
    from stillroom.conversation import Conversation, Way, open_speaker
    from stillroom.devices import use

    def opened(name: str) -> "Speaker":
        return open_speaker(str(student_folder(name)), store_root(), reader, where, new_tokens)

    where = str(use(device, 2))
    conversation = Conversation(opened(model))
    conversation.turn_to(Way(thoughts))
    if oracle:
        conversation.speaker.reader()
    talk = Talk(conversation, opened, oracle)
    for stream in (sys.stdin, sys.stdout):
        cast("TextIOWrapper", stream).reconfigure(errors="backslashreplace")
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.Exit(in_a_pipe(talk, sys.stdin, emit))
    raise typer.Exit(at_a_terminal(talk))
