"""The application that commands are added to, and what they share."""

import os
import re
import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from stillroom import __version__
from stillroom.errors import DataError, Interrupted, StoreError, UsageError
from stillroom.progress import say

P = ParamSpec("P")
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distils chains of thought and looks inside what comes out.",
)
STORED = re.compile(r"(base|student)/[^/]+|[0-9a-f]{16}")
"""A model's name in the store, as `stillroom list` prints it or cut short, or a slip in one: not for the hub."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Copy the result to this file.")]


def keeps_nothing(command: Callable[P, None]) -> Callable[P, None]:
    """Of a command whose work is gone when it is stopped: how it ends then does not say otherwise."""

    @wraps(command)
    def called(*args: P.args, **named: P.kwargs) -> None:
        try:
            command(*args, **named)
        except Interrupted:
            raise Interrupted("stopped by SIGTERM; this command keeps nothing") from None
        except KeyboardInterrupt:
            say("stillroom: stopped; this command keeps nothing")
            raise typer.Exit(130) from None

    return called


def store_root() -> Path:
    return Path(os.environ.get("STILLROOM_STORE", "stills"))


def refuse_output(path: Path | None, source: Path | None = None) -> None:
    """Before anything is asked: what cannot be written at the end would be lost, and so would what is read."""
    from stillroom.files import resolved

    if path is not None and source is not None and resolved(path) == resolved(source):
        raise UsageError(f"-o {path} is the file that is read; name another")
    if path is not None and (path.is_dir() or not resolved(path).parent.is_dir()):
        why = "is a folder" if path.is_dir() else "stands in a folder that does not exist"
        raise UsageError(f"-o {path} {why}; name a file in a folder that exists")


def emit(text: str) -> None:
    print(text, flush=True)  # noqa: T201


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if show:
        emit(f"stillroom {__version__}")
        raise typer.Exit


def refuse_existing(target: Path | None) -> None:
    if target is not None and target.exists():
        raise DataError(f"{target} exists; remove it, or name another folder")


def student_folder(name: str) -> Path:
    """A student by its folder, or by its name in the store, `student/KEY`, whose key may be cut short; not damaged.

    Raises `UsageError` for a name of the store that begins none of its folders or several, and for a `./folder` that is
    not there: neither is anything that the hub could have.
    """
    refuse_name(name)
    found = [] if Path(name).is_dir() else _beginning(name)
    if len(found) > 1:
        these = ", ".join(str(path.relative_to(store_root())) for path in found[:5])
        raise UsageError(f"{name} is the beginning of {len(found)} folders of the store ({these}): write more of it")
    if not found and not Path(name).is_dir():
        if STORED.fullmatch(name):
            raise UsageError(
                f"{name}: there is no such folder here, and no folder of the store {store_root()} begins so: "
                "`stillroom list` prints the names"
            )
        if name.startswith("./"):
            raise UsageError(f"{name}: there is no such folder here: look at the path")
    folder = refuse_damaged(found[0] if found else Path(name))
    refuse_unfinished(folder)
    refuse_code(folder)
    return folder


def refuse_name(name: str) -> None:
    """Raise `UsageError` for a name that can be no file's; one that is too long the system refuses itself."""
    if "\0" in name:
        raise UsageError(f"{name!r} is no file's name, since it holds a NUL character; name another")


def _beginning(name: str) -> list[Path]:
    """The store's folders whose name begins so; a name is a stage and a key."""
    stage, _, key = name.partition("/")
    among = store_root() / stage
    if not (stage and key and among.is_dir()):
        return []
    return [
        path for path in sorted(among.iterdir()) if path.name.startswith(key) and path.name.isalnum() and path.is_dir()
    ]


def refuse_code(folder: Path) -> None:
    """Raise `DataError` for a student from elsewhere whose own file says that code is to be run: a recipe says that, or
    the person who calls, never what was fetched."""
    from stillroom.files import resolved
    from stillroom.students.folders import MANNER, load_manner

    if not (folder / MANNER).is_file() or resolved(folder).is_relative_to(resolved(store_root())):
        return
    origin = load_manner(folder).origin
    if origin is not None and origin.trust_remote_code:
        raise DataError(
            f"{folder}: its {MANNER} wants code of {origin.source} to be run, which only students of the store "
            f"{store_root()} may: set trust_remote_code to false there, or train it here from a base that you trust"
        )


def refuse_unfinished(folder: Path) -> None:
    """Raise `StoreError` for a student that lies in the store without its manifest: nobody can tell what it is."""
    from stillroom.files import resolved
    from stillroom.store import MANIFEST
    from stillroom.students.folders import MANNER

    stored = (folder / MANNER).is_file() and resolved(folder).is_relative_to(resolved(store_root()))
    if stored and not (folder / MANIFEST).is_file():
        raise StoreError(
            f"{folder}: it has no {MANIFEST}, so it was never finished, or is damaged; run its recipe again"
        )


def refuse_damaged(folder: Path) -> Path:
    """The same folder. Raises `StoreError` where it was committed to a store, and is not what was committed."""
    from stillroom.store import MANIFEST, Store

    if (folder / MANIFEST).is_file() and (damage := Store(store_root()).damage(folder)):
        raise StoreError(f"{folder}: {damage}; run its recipe again, which sets it aside and makes it anew")
    return folder


def copy_student(source: Path, target: Path) -> Path:
    """A student's folder for use elsewhere, with its card; it appears whole or not at all."""
    from stillroom.files import folder_atomic
    from stillroom.pipeline.cards import CARD, card_of
    from stillroom.students.folders import settle_origin

    refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with folder_atomic(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json", "partial"))
        settle_origin(folder, source)
        (folder / CARD).write_text(card_of(source), encoding="utf-8")
    return target
