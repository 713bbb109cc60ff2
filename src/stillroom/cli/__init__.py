"""The command line: thin doors to the rooms. Exit codes: 0 done, 1 failed, 2 wrong usage, 75 stopped by SIGTERM.

Rooms are imported inside the commands, so that `--help` answers at once and `report` opens without torch.
"""

import os
import signal
import sys

from stillroom.cli import chat, evaluating, lenses, lessons, oracle, runs, students, studio
from stillroom.cli.app import app
from stillroom.errors import STOPPED, Interrupted, StillroomError, UsageError, sentence, short_of_memory

__all__ = ["app", "chat", "evaluating", "lenses", "lessons", "main", "oracle", "runs", "students", "studio"]


def terminated(*_: object) -> None:
    raise Interrupted(STOPPED)


def main() -> None:
    """Run the command that was asked for and leave with its exit code."""
    code = status()
    if "WORLD_SIZE" in os.environ:
        # Gloo's threads may still hold tensors while the interpreter is taken down, and would then abort a process
        # whose work is done (pytorch/pytorch#179291): one of several processes leaves without that.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def status() -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong usage, 75 stopped and saved, 130 interrupted."""
    signal.signal(signal.SIGTERM, terminated)
    try:
        app()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except StillroomError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"stillroom: {error}", file=sys.stderr)  # noqa: T201
        return 75 if isinstance(error, Interrupted) else 2 if isinstance(error, UsageError) else 1
    except OSError as error:  # of the machine's: a full disk, a folder that may not be written
        print(f"stillroom: {sentence(error)}", file=sys.stderr)  # noqa: T201
        return 1
    except (RuntimeError, MemoryError) as error:
        if not short_of_memory(error):
            raise
        why = " ".join(str(error).split())[:200]
        print(f"stillroom: memory ran out ({why}): ask for less, or use a machine with more", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("stillroom: stopped; run the same command to go on", file=sys.stderr)  # noqa: T201
        return 130
    return 0
