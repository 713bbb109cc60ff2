"""A model hub on the loopback: the routes that its client asks for, over a few files held in memory."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

COMMIT = "a" * 40


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def dataset(config: str, **splits: list[dict[str, Any]]) -> dict[str, bytes]:
    """The files of a dataset repository with one config: its card and a parquet a split."""
    listed = "".join(f"  - split: {split}\n    path: {config}/{split}-*\n" for split in splits)
    card = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{listed}---\n"
    tables = {f"{config}/{split}-00000-of-00001.parquet": parquet(rows) for split, rows in splits.items()}
    return {"README.md": card.encode(), **tables}


class Hub:
    """`broken`: every answer is 500. `stalled`: files whose part `name` holds stop half-way, until it is cleared."""

    def __init__(self, repositories: dict[str, dict[str, bytes]], port: int = 0) -> None:
        self.repositories, self.broken, self.stalled = repositories, False, ""
        self.halfway, self.got = threading.Event(), list[str]()
        self.server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serving(**repositories: dict[str, bytes]) -> Iterator[Hub]:
    """Repositories by name, with `__` for the slash."""
    hub = Hub({name.replace("__", "/"): files for name, files in repositories.items()})
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api").removeprefix("/datasets/")
        repository = "/".join(path.split("/")[:2])
        files = self.hub.repositories.get(repository)
        rest = path.removeprefix(repository).strip("/")
        if self.hub.broken:
            self.answer(b"", 500)
        elif files is None:
            self.answer(b"Repository not found", 404, **{"X-Error-Code": "RepoNotFound"})
        elif rest.startswith("resolve/"):
            self.file(files, rest.split("/", 2)[2])
        elif rest.startswith("tree/"):
            self.json(tree(files, rest.split("/", 2)[2] if rest.count("/") > 1 else ""))
        else:
            self.json({"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})

    def file(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            self.answer(b"Entry not found", 404, **{"X-Error-Code": "EntryNotFound"})
            return
        if self.command == "GET":
            self.hub.got.append(name)
        stall = bool(self.hub.stalled) and self.hub.stalled in name
        self.answer(
            files[name], 200, stall=stall, ETag=f'"{sha1(files[name]).hexdigest()}"', **{"X-Repo-Commit": COMMIT}
        )

    def json(self, data: object) -> None:
        self.answer(json.dumps(data).encode(), 200, **{"Content-Type": "application/json"})

    def answer(self, body: bytes, code: int, *, stall: bool = False, **headers: str) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if stall else body)
        if stall:
            self.wfile.flush()
            self.hub.halfway.set()
            threading.Event().wait(20)  # the client is killed meanwhile


def tree(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    """What lies directly in a folder."""
    inside = [name.removeprefix(f"{folder}/") for name in files if not folder or name.startswith(f"{folder}/")]
    prefix = f"{folder}/" if folder else ""
    folders = {name.partition("/")[0] for name in inside if "/" in name}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "oid": "b" * 40, "size": 0, "path": prefix + name} for name in sorted(folders)
    ]
    plain = [prefix + name for name in inside if "/" not in name]
    return entries + [
        {"type": "file", "oid": sha1(files[name]).hexdigest(), "size": len(files[name]), "path": name} for name in plain
    ]
