"""The journal: every reply that was paid for, one row a request, on disk before anybody uses it.

SQLite, with a write-ahead log on a local disk and a rollback journal elsewhere (the log needs shared memory). Replies
that arrive while a transaction is being written share the next one. Every row carries a checksum, so that no reply is
used, and no token counted, that is not as it was written; it tells damage, not forgery. It knows no provider and no
network.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from stillroom.errors import StoreError
from stillroom.progress import say
from stillroom.records import content_key
from stillroom.teachers.requests import Ask, Reply

RECORDED, FAILED = "recorded", "failed"
PATIENCE_S = 60.0
REMOTE = ("nfs", "cifs", "smb", "fuse", "lustre", "gpfs", "beegfs", "ceph", "9p", "glusterfs", "afs")
SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
  key TEXT PRIMARY KEY, teacher TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL, messages TEXT NOT NULL,
  parameters TEXT NOT NULL, sample INTEGER NOT NULL, status TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL,
  reason TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, batch INTEGER NOT NULL,
  at REAL NOT NULL, checksum TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
  token TEXT PRIMARY KEY, teacher TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL, id TEXT, at REAL NOT NULL,
  collected INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS batch_requests (key TEXT PRIMARY KEY, token TEXT NOT NULL) WITHOUT ROWID;
"""
COLUMNS = (
    "key", "teacher", "model", "endpoint", "messages", "parameters", "sample", "status", "text", "finish", "reason",
    "input_tokens", "output_tokens", "batch", "at", "checksum",
)  # fmt: skip
SAID = COLUMNS[7:14]
"""Of a request: what came of it."""


class Row(NamedTuple):
    """What the journal knows of one request: a reply, or the reason why there will be none."""

    reply: Reply | None
    reason: str
    batch: bool = False


class Batch(NamedTuple):
    """A batch that was handed in and not collected. `id` is None where a kill came between the two writes."""

    token: str
    id: str | None
    at: float


class Journal:
    """Opened by one process per teacher, model and endpoint at a time (`sole`); read by any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer, self._reader = self._connect(), self._connect()
            self._writer.execute(f"PRAGMA journal_mode={'WAL' if on_local_disk(path) else 'DELETE'}")
            self._writer.execute("PRAGMA synchronous=FULL")
            self._writer.executescript(SCHEMA)
            self._seal()
            self.find("")
            # deletes nothing: a journal that cannot be written is found out before anything is paid for
            self._transaction([("DELETE FROM batches WHERE token = ?", [("",)])])
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, StoreError):
                raise
            raise _cannot_read(path, error) from None
        self._thread = ThreadPoolExecutor(1, "journal")
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)

    def _seal(self) -> None:
        """Give checksums to a journal from before there were any: its replies were paid for, and are taken as they
        stand."""
        if "checksum" in self._columns():
            return
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            if "checksum" not in self._columns():  # another process may have been first
                whole = self._writer.execute(f"SELECT {','.join(COLUMNS[:-1])} FROM requests").fetchall()  # noqa: S608
                self._writer.execute("ALTER TABLE requests ADD COLUMN checksum TEXT NOT NULL DEFAULT ''")
                sealed = [(content_key(row), row[0]) for row in whole]
                self._writer.executemany("UPDATE requests SET checksum = ? WHERE key = ?", sealed)
            self._writer.execute("COMMIT")
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise

    def _columns(self) -> list[str]:
        return [str(name) for _, name, *_ in self._writer.execute("PRAGMA table_info(requests)")]

    def close(self) -> None:
        self._thread.shutdown()
        if self._waiting:  # replies that came in when the run was stopped at once
            self._write([row for row, _ in self._waiting])
        self._reader.close()
        self._writer.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, key: str) -> Row | None:
        row = next(self._rows("WHERE key = ?", key), None)
        if row is None:
            return None
        status, text, finish, reason, read, written, batch = (row[name] for name in SAID)
        return Row(Reply(text, finish, read, written) if status == RECORDED else None, reason, bool(batch))

    def _rows(self, which: str, *values: str) -> Iterator[dict[str, Any]]:
        """Whole rows by column. Raises `StoreError` at one that is not as it was written."""
        try:
            for row in self._reader.execute(f"SELECT {','.join(COLUMNS)} FROM requests {which}", values):  # noqa: S608
                found = dict(zip(COLUMNS, row, strict=True))
                if not _as_written(found):
                    raise _damaged(self.path, found["key"])
                yield found
        except sqlite3.Error as error:
            raise _cannot_read(self.path, error) from None

    async def record(self, ask: Ask, reply: Reply | None, reason: str = "", batch: bool = False) -> None:
        """Returns once the row is on disk."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((_row(ask, reply, reason, batch), future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await future

    async def _flush(self) -> None:
        try:
            while self._waiting:
                block, self._waiting = self._waiting, []
                try:
                    rows = [row for row, _ in block]
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._write, rows)
                except Exception as error:
                    for _, future in block:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for _, future in block:
                        if not future.done():
                            future.set_result(None)
        finally:
            self._flushing = None

    def write(self, rows: Iterable[tuple[Ask, Reply | None, str]]) -> None:
        """Many rows in one transaction, for those who do not wait on a network."""
        self._write([_row(ask, reply, reason, False) for ask, reply, reason in rows])

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        """A reply takes the place of a failure; nothing takes the place of a reply."""
        statement = (
            f"INSERT INTO requests VALUES ({','.join('?' * len(COLUMNS))}) ON CONFLICT (key) DO UPDATE SET"  # noqa: S608
            f" {','.join(f'{name}=excluded.{name}' for name in COLUMNS[1:])} WHERE requests.status='failed'"
        )
        self._transaction([(statement, rows)])

    def _transaction(self, statements: Iterable[tuple[str, Iterable[tuple[Any, ...]]]]) -> None:
        """All of them, each for its rows, or none. Raises `StoreError`."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                for statement, rows in statements:
                    self._writer.executemany(statement, rows)
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _cannot_write(self.path, error) from None

    def intend(self, teacher: str, model: str, endpoint: str, keys: list[str]) -> str:
        """Notes that a batch of these requests is about to be handed in; its token finds it again after a kill."""
        now = time.time()
        token = content_key([keys, now])
        batch = "INSERT INTO batches (token, teacher, model, endpoint, at) VALUES (?,?,?,?,?)"
        requests = "INSERT OR REPLACE INTO batch_requests VALUES (?,?)"
        self._transaction(
            [(batch, [(token, teacher, model, endpoint, now)]), (requests, [(key, token) for key in keys])]
        )
        return token

    def name_batch(self, token: str, batch: str) -> None:
        self._transaction([("UPDATE batches SET id = ? WHERE token = ?", [(batch, token)])])

    def close_batch(self, token: str) -> None:
        """The batch is collected, or never came to be: its requests may be asked again where no row holds them."""
        forget, close = "DELETE FROM batch_requests WHERE token = ?", "UPDATE batches SET collected = 1 WHERE token = ?"
        self._transaction([(forget, [(token,)]), (close, [(token,)])])

    def open_batches(self, teacher: str, model: str, endpoint: str) -> list[Batch]:
        query = (
            "SELECT token, id, at FROM batches WHERE teacher=? AND model=? AND endpoint=? AND NOT collected ORDER BY at"
        )
        return [Batch(*row) for row in self._reader.execute(query, (teacher, model, endpoint))]

    def batch_keys(self, token: str) -> list[str]:
        return [key for (key,) in self._reader.execute("SELECT key FROM batch_requests WHERE token=?", (token,))]

    def batch_ids(self) -> set[str]:
        return {name for (name,) in self._reader.execute("SELECT id FROM batches WHERE id IS NOT NULL")}

    def in_batch(self, key: str) -> bool:
        return self._reader.execute("SELECT 1 FROM batch_requests WHERE key=?", (key,)).fetchone() is not None

    def summary(self) -> Iterator[dict[str, Any]]:
        """One row a teacher, model, endpoint, status and way of asking: requests, tokens, first and last time.

        Raises `StoreError` where a row that would be counted is not as it was written.
        """
        names = ("teacher", "model", "endpoint", "status", "batch")
        for of, rows in groupby(self._rows(f"ORDER BY {','.join(names)}"), itemgetter(*names)):
            told = {**dict(zip(names, of, strict=True)), "requests": 0, "input_tokens": 0, "output_tokens": 0}
            at = []
            for row in rows:
                told["requests"] += 1
                told["input_tokens"] += row["input_tokens"]
                told["output_tokens"] += row["output_tokens"]
                at.append(row["at"])
            yield {**told, "first": min(at), "last": max(at)}

    def sole(self, teacher: str, model: str, endpoint: str) -> FileLock:
        """Held by the one process that asks this model: a second one waits, so that nothing is paid for twice."""
        lock = FileLock(self.path.with_name(f".{self.path.name}.{content_key([teacher, model, endpoint])}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process is asking {teacher}:{model}; waiting until it is done, its replies will be used")
            lock.acquire()
        return lock


def _row(ask: Ask, reply: Reply | None, reason: str, batch: bool) -> tuple[Any, ...]:
    said = reply or Reply("", "", 0, 0)
    key = ask.key()
    found = (
        RECORDED if reply else FAILED, said.text, said.finish, reason, said.input_tokens, said.output_tokens, int(batch)
    )  # fmt: skip
    row = (
        key, ask.teacher, ask.model, ask.endpoint, json.dumps(list(ask.messages), ensure_ascii=False),
        json.dumps(ask.parameters(), sort_keys=True), ask.sample, *found, time.time(),
    )  # fmt: skip
    return (*row, content_key(row))


def _as_written(row: dict[str, Any]) -> bool:
    """Whether the checksum is that of the whole row, or of key and reply alone, as an earlier journal has it, whose
    replies were paid for."""
    *whole, checksum = row.values()
    try:
        return checksum in (content_key(whole), content_key([row["key"], *(row[name] for name in SAID)]))
    except (TypeError, ValueError):  # bytes, or a number that no JSON holds
        return False


def _damaged(path: Path, key: str) -> StoreError:
    return StoreError(
        f"{path}: the row of request {key} is not as it was written (it is damaged), so neither its reply "
        "nor its tokens are used; bring back a copy of the journal, or delete that row of the table requests to have "
        "it asked again"
    )


def _cannot_read(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path}: the journal cannot be opened ({error}); move it away, mend it, or set STILLROOM_STORE to a folder "
        "that you may write to"
    )


def _cannot_write(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path}: the journal cannot be written ({error}); what was recorded before is safe: mend that, run again"
    )


def on_local_disk(path: Path, mounts: Callable[[], str] | None = None) -> bool:
    """Whether the file system that holds `path` is this machine's own (where that can be told: Linux)."""
    try:
        table = mounts() if mounts else Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    place, kind = "", ""
    for line in table.splitlines():
        where, name = line.split()[1:3]
        inside = path.resolve().is_relative_to(where.replace("\\040", " "))
        if inside and len(where) >= len(place):
            place, kind = where, name
    return not kind.lower().startswith(REMOTE)
