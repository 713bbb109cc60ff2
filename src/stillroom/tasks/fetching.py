"""Benchmarks into the data folder: from the model hub, or from local files once they are read and found whole.

Each file appears whole or not at all, and `checksums.json` beside them tells what it is: SHA-256, rows, source and
revision. So a fetch that was killed goes on with what is missing, and a file that somebody changed is noticed.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256 as digest
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from stillroom.errors import DataError, UsageError, unknown
from stillroom.files import sha256, write_atomic, write_json
from stillroom.progress import meter
from stillroom.tasks.benchmarks import hub
from stillroom.tasks.benchmarks.reading import read_splits
from stillroom.tasks.benchmarks.rows import Row, rows
from stillroom.tasks.benchmarks.table import BENCHMARKS, Benchmark

CHECKSUMS = "checksums.json"


class Entry(BaseModel):
    """What `checksums.json` tells of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    rows: int
    source: str
    revision: str


class Fetched(BaseModel):
    """What became of one file: `fetched`, or `there` where it had come before."""

    file: str
    fate: str
    entry: Entry


ENTRIES = TypeAdapter(dict[str, Entry])


def fetch(names: Sequence[str], to: Path, source: Path | None, again: bool) -> Iterator[Fetched]:
    """Bring benchmarks into the folder `to`, from the folder `source` or from the model hub.

    Raises `UsageError` for an unknown name before anything is done, and `DataError` at the end for what failed.
    """
    if strange := [name for name in names if name not in BENCHMARKS]:
        raise UsageError(unknown("dataset", strange[0], BENCHMARKS))
    failures = []
    with meter("fetch", len(names), "datasets") as bar:
        for name in dict.fromkeys(names):
            try:
                yield from fetch_one(name, to, source, again)
            except DataError as error:
                failures.append(str(error))
            bar.advance(note=name)
    if failures:
        raise DataError("\n".join(failures))


def fetch_one(name: str, to: Path, source: Path | None, again: bool) -> Iterator[Fetched]:
    """One benchmark. A file whose checksum still holds is not brought again, unless `again`."""
    sources = local_files(name, source) if source else None
    wanted = tuple(sources or BENCHMARKS[name].files(name, "official").values())
    known = checksums(to)
    there = [] if again else [file for file in wanted if _holds(to / file, known.get(file))]
    yield from (Fetched(file=file, fate="there", entry=known[file]) for file in there)
    if len(there) == len(wanted):
        return
    contents, origin, revision = from_folder(name, sources) if sources else from_hub(name)
    for file in (file for file in wanted if file not in there):
        content = contents[file]
        entry = Entry(sha256=digest(content).hexdigest(), rows=content.count(b"\n"), source=origin, revision=revision)
        yield Fetched(file=file, fate=place(to / file, content, entry, again), entry=entry)


def _holds(path: Path, entry: Entry | None) -> bool:
    """Whether a file is the one that was fetched. Raises `DataError` where it was changed since."""
    if entry is None or not path.exists():
        return False
    if sha256(path) != entry.sha256:
        raise DataError(f"{path}: it was changed since it was fetched: move it away, or replace it with --again")
    return True


def place(path: Path, content: bytes, entry: Entry, again: bool) -> str:
    """Write one file and its entry. Raises `DataError` rather than replace a file that somebody else put there."""
    try:
        if path.exists() and sha256(path) != entry.sha256 and not again:
            told = "another file of this name is there that was not fetched"
            raise DataError(f"{path}: {told}: move it away, or replace it with --again")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
        entries = {**checksums(path.parent), path.name: entry}
        write_json(path.parent / CHECKSUMS, ENTRIES.dump_python(entries, mode="json"))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give another folder with --to") from None
    return "fetched"


def checksums(folder: Path) -> dict[str, Entry]:
    path = folder / CHECKSUMS
    try:
        return ENTRIES.validate_json(path.read_bytes()) if path.exists() else {}
    except ValidationError:
        told = "it is damaged: remove it, and fetch again; the files themselves are compared and stay"
        raise DataError(f"{path}: {told}") from None


def local_files(name: str, folder: Path) -> dict[str, Path]:
    """From our file names to what `folder` holds of one benchmark: the study's files, the hub's, or both."""
    benchmark = BENCHMARKS[name]
    sets = [_present(benchmark, benchmark.files(name, split), folder) for split in ("study", "official")]
    if found := {file: path for files in sets for file, path in files.items()}:
        return found
    study, official = (", ".join(benchmark.files(name, split).values()) for split in ("study", "official"))
    raise DataError(f"{folder}: holds nothing of {name}; expected {study} or {official}")


def _present(benchmark: Benchmark, files: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """The files of one set. Raises `DataError` where some are there and others are not."""
    places = {file: [folder / file] for file in files.values()}
    if files != benchmark.study:
        places |= {files[split]: [folder / files[split], folder / also] for split, also in benchmark.also.items()}
    found = {file: next((path for path in paths if path.is_file()), None) for file, paths in places.items()}
    missing = [file for file, path in found.items() if path is None]
    if missing and len(missing) < len(found):
        raise DataError(f"{folder / missing[0]}: no such file, though others of its benchmark are there; add it")
    return {file: path for file, path in found.items() if path is not None}


def from_folder(name: str, sources: Mapping[str, Path]) -> tuple[dict[str, bytes], str, str]:
    """The contents of local files, once every row of them was read."""
    benchmark = BENCHMARKS[name]
    for split in ("study", "official"):
        files = benchmark.files(name, split)
        if set(files.values()) <= set(sources):
            read_splits(name, {part: sources[file] for part, file in files.items()})
    folder = next(iter(sources.values())).parent.resolve()
    return {file: _content(path, benchmark) for file, path in sources.items()}, str(folder), ""


def _content(path: Path, benchmark: Benchmark) -> bytes:
    """A file's bytes; lines of another notation as JSON."""
    if path.suffix != ".jsonl":
        return lines(row for _, row in rows(path, benchmark.fields, benchmark.identity or None))
    content = path.read_bytes()
    return content if content.endswith(b"\n") else content + b"\n"


def from_hub(name: str) -> tuple[dict[str, bytes], str, str]:
    """The hub's own splits as JSON lines, once every row of them was read."""
    benchmark = BENCHMARKS[name]
    found, revision = hub.load(benchmark.hub)
    files = benchmark.files(name, "official")
    contents = {files[split]: lines(part) for split, part in found.items()}
    with tempfile.TemporaryDirectory(prefix="stillroom-") as scratch:
        for file, content in contents.items():
            (Path(scratch) / file).write_bytes(content)
        read_splits(name, {split: Path(scratch) / file for split, file in files.items()})
    return contents, benchmark.hub.source, revision


def lines(found: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode()
