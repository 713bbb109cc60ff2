"""Every error that Stillroom raises on purpose. A message says what was wrong, what was expected, and what to do next.

* StillroomError
  + UsageError         the call itself is wrong: an unknown name, a malformed recipe (exit code 2)
    - ConfigError      a field of a recipe or an override, named with its file
  + DataError          a data file is missing, truncated, not UTF-8 or malformed, named with its line
  + StoreError         the store cannot be read or written
    - LeaseLost        another process took this stage over
  + TeacherError       a teacher cannot be asked: no key, no network, no credit, an unknown model
  + ClusterError       the machines of a cluster cannot be had, or died too often
  + TrainingError      the loss became NaN or diverged, or memory was short
  + Interrupted        SIGTERM came; what was done is saved (exit code 75)
"""

import difflib
from collections.abc import Iterable
from typing import Any

SHOWN = 100
"""Letters of a name that a sentence repeats."""


STOPPED = "stopped by SIGTERM; what was done is kept: run the same command to go on"
"""What a command says that goes on where it was stopped."""


class StillroomError(Exception):
    """Anything that a user can mend; the command line prints its message without a traceback."""


class UsageError(StillroomError, ValueError):
    pass


class ConfigError(UsageError):
    pass


class DataError(StillroomError, ValueError):
    pass


class StoreError(StillroomError, OSError):
    pass


class LeaseLost(StoreError):
    pass


class TeacherError(StillroomError, RuntimeError):
    pass


class ClusterError(StillroomError, RuntimeError):
    pass


class TrainingError(StillroomError, ArithmeticError):
    pass


class Interrupted(StillroomError):
    pass


def sentence(error: StillroomError | OSError) -> str:
    """What to tell of an error; one of the machine's own, such as a full disk, names its file."""
    return (
        str(error) if isinstance(error, StillroomError) else f"{error.filename or 'writing'}: {error.strerror or error}"
    )


def short_of_memory(error: BaseException) -> bool:
    """Whether memory was too little: for Python, for torch on an accelerator, or on a CPU, where torch has no class for
    it."""
    kinds = (type(error).__name__ == "OutOfMemoryError", isinstance(error, MemoryError))
    return any(kinds) or "can't allocate memory" in str(error)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not in a table: the known names, the nearest first."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=max(1, len(names)), cutoff=0.5)
    ordered = near + [n for n in names if n not in near]
    hint = f"did you mean {shown(near[0])!r}? " if near else ""
    return f"unknown {what} {shown(name)!r}: {hint}known are {', '.join(map(shown, ordered)) or 'none'}"


def shown(name: str) -> str:
    """A name as a sentence repeats it: cut where it is a page long."""
    return name if len(name) <= SHOWN else f"{name[:SHOWN]}…"


def first_fault(error: Any) -> str:
    """The field and the fault that a `pydantic.ValidationError` names first."""
    first = error.errors(include_url=False)[0]
    return f"{shown('.'.join(map(str, first['loc'])))}: {first['msg']}"
