"""The application that commands are added to, and what they share."""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from stillroom import __version__
from stillroom.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distils chains of thought and looks inside what comes out.",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Copy the result to this file.")]


def store_root() -> Path:
    return Path(os.environ.get("STILLROOM_STORE", "stills"))


def emit(text: str) -> None:
    print(text)  # noqa: T201


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if show:
        emit(f"stillroom {__version__}")
        raise typer.Exit


def copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise UsageError(f"there is no report to copy to {target}: run the recipe to its end, without --until")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def copy_student(source: Path, target: Path) -> Path:
    """A student's folder for use elsewhere, without the store's manifest; it appears whole or not at all."""
    from stillroom.files import folder_atomic
    from stillroom.students.folders import settle_origin

    if target.exists():
        raise UsageError(f"{target} exists; remove it, or name another folder (the student is kept in {source})")
    target.parent.mkdir(parents=True, exist_ok=True)
    with folder_atomic(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json", "partial"))
        settle_origin(folder, source)
    return target
