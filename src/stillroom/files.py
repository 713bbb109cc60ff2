"""Writing that survives: atomic replacement, checksums, append-only tables, and the lease that one process holds.

Nothing here knows what it writes.
"""

import errno
import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from stillroom.errors import DataError, StoreError, first_fault
from stillroom.progress import say

R = TypeVar("R", bound=BaseModel)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> None:
    """Write the file's SHA-256 beside it, for work in progress, which no manifest covers yet."""
    write_atomic(_stamp(path), sha256(path))


def intact(path: Path) -> bool:
    """Whether a file with a stamp is there and is what was stamped."""
    return path.is_file() and _stamp(path).is_file() and _stamp(path).read_bytes() == sha256(path).encode()


def _stamp(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def resolved(path: Path) -> Path:
    """The whole path behind all links. A ring of links stays what it is: `Path.resolve` raises what is no OSError."""
    return Path(os.path.realpath(path))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable (a no-op where folders cannot be opened, as on Windows)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` so that a reader sees the old content or the new, never a part of it.

    A link keeps its place, and what it points to is replaced; a device or a pipe is written to, never replaced.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return
    path = resolved(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """A scratch folder that becomes `path` when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb+") as handle:
                    os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


@contextmanager
def stream_atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which becomes `path` when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_json(path: Path) -> Any:
    """What a JSON file of our own holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    write_atomic(path, json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def write_lines(path: Path, records: Iterable[BaseModel]) -> None:
    """Records as JSON lines."""
    write_atomic(path, "".join(record.model_dump_json() + "\n" for record in records))


@contextmanager
def lines_atomic(path: Path) -> Iterator[Callable[[Any], None]]:
    """A function that adds one JSON line to `path`, which appears whole when the block ends well, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield lambda row: print(json.dumps(row, ensure_ascii=False), file=file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def numbered_lines(path: Path, hint: str = "") -> Iterator[tuple[int, str]]:
    """The non-empty lines of a UTF-8 file with their numbers. Raises `DataError` with path, line and `hint`."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise DataError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
                if line:
                    yield number, line
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}){'; ' + hint if hint else ''}") from None


def read_lines(path: Path, record: type[R]) -> list[R]:
    """JSON lines as validated records. Raises `DataError`, which names the line."""
    rows = []
    for number, line in numbered_lines(path):
        try:
            rows.append(record.model_validate_json(line))
        except ValidationError as error:
            raise DataError(f"{path}:{number}: {first_fault(error)}; mend or remove this line") from None
    return rows


SEAL = "\t"
"""Stands before a line's checksum; JSON writes no tab of its own."""


def sealed(line: bytes) -> bytes:
    """A line with its CRC-32, by which a later reader tells whether it is still what was written."""
    return line + f"{SEAL}{zlib.crc32(line):08x}".encode()


def unsealed(content: bytes) -> list[str]:
    """The lines of a table up to the first that was cut short or is not what was written."""
    lines = []
    for raw in content.split(b"\n")[:-1]:
        line, _, _ = raw.rpartition(SEAL.encode())
        if sealed(line) != raw:
            break
        lines.append(line.decode())
    return lines


class AppendOnly:
    """A table that grows by whole blocks of lines, each durable before `append` returns.

    `lines` holds what was there at opening. A last line that a crash cut short is removed, and so is all from a line on
    that is not what was written: it is told, and made again by whoever writes the table.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab+")
        self._file.seek(0)
        content = self._file.read()
        self.lines = unsealed(content)
        whole = sum(len(sealed(line.encode())) + 1 for line in self.lines)
        if lost := content.count(b"\n", whole):
            say(f"! {path}: line {len(self.lines) + 1} is not what was written; {lost} lines are made again")
        self._file.truncate(whole)

    def append(self, lines: Iterable[str]) -> None:
        self._file.write(b"".join(sealed(line.encode()) + b"\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "AppendOnly":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def disk_is_full(error: Exception) -> bool:
    """Whether a write failed for want of space or quota (safetensors tells it in words alone)."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)


def no_space(store: Path, doing: str) -> StoreError:
    """What to tell a user whose disk is full or whose quota is spent."""
    return StoreError(
        f"the disk that holds {store} is full: {doing} was not committed. "
        "Nothing that was committed before is lost. Free space, then run the same command: it continues."
    )
