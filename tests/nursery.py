"""Commands of `stillroom` as processes of their own, forked from one that has imported everything: starting is cheap.

As a program (`python nursery.py`) it reads a command a line from its input and tells process numbers and exit codes.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path


class Nursery:
    """Starts commands one at a time: `begin`, then `end`; or both with `run`."""

    def __enter__(self) -> "Nursery":
        call = [sys.executable, __file__]
        self._host = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._host.communicate()

    def begin(self, log: Path, environment: Mapping[str, str], *call: str) -> int:
        """The number of the process that carries the call out; what it says goes to `log`."""
        assert self._host.stdin is not None
        print(json.dumps([str(log), dict(environment), list(call)]), file=self._host.stdin, flush=True)
        return int(self._hear())

    def end(self) -> int:
        """The exit code of the call; below 0 the signal that ended it."""
        return os.waitstatus_to_exitcode(int(self._hear()))

    def run(self, log: Path, environment: Mapping[str, str], *call: str) -> int:
        self.begin(log, environment, *call)
        return self.end()

    def _hear(self) -> str:
        assert self._host.stdout is not None
        return self._host.stdout.readline()


def child(log: str, environment: Mapping[str, str], call: Sequence[str]) -> None:
    handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(handle, number)
    os.environ.update(environment)
    sys.argv = ["stillroom", *call]
    from stillroom.cli import main

    main()


def serve() -> None:
    import aiohttp  # before those whose clients look for it once
    import anthropic
    import openai

    import stillroom.cli
    import stillroom.pipeline
    from stillroom.teachers import limits

    assert all((aiohttp, anthropic, openai, stillroom.cli.app, stillroom.pipeline.plan))
    limits.FIRST_WAIT_S = 0.01  # between the attempts of a request
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            try:
                child(*json.loads(line))
            except SystemExit as left:
                sys.stdout.flush()
                os._exit(left.code if isinstance(left.code, int) else 1)
            except BaseException:
                traceback.print_exc()
                os._exit(70)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    serve()
