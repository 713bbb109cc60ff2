"""Traces on disk: one Parquet table, a row a problem, and one safetensors file beside it with its vectors.

Both are written part by part and joined part by part, so that memory holds one part at a time; a part is on disk whole
or not at all. What a file lacks is told when it is read, before anybody asks anything of it.

Legend: N problems, K thoughts, d width of the student.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from stillroom.errors import DataError
from stillroom.files import intact, stamp, stream_atomic, write_atomic
from stillroom.records import Trace

VECTORS = ("thoughts_NKd", "hiddens_NKd")
PART = 1024
"""Rows that are read at once: as plain dictionaries they are larger than as traces."""
STRINGS, STRING, NUMBER = pa.list_(pa.string()), pa.string(), pa.float64()
THOUGHT = pa.struct(
    [
        ("step", pa.int32()),
        *((name, NUMBER) for name in ("norm", "cosine_to_previous", "sparsity", "entropy")),
        ("top", pa.list_(pa.struct([("token", STRING), ("share", NUMBER)]))),
    ]
)
SCHEMA = pa.schema(
    [
        *((name, STRING) for name in ("problem", "student", "question", "gold", "kind", "skeleton")),
        *((name, STRING) for name in ("partner", "answer")),
        ("choices", STRINGS),
        ("steps", STRINGS),
        ("thoughts", pa.list_(THOUGHT)),
        ("outputs", pa.map_(STRING, STRING)),
        ("losses", pa.map_(STRING, NUMBER)),
    ]
)


@dataclass(frozen=True)
class Traces:
    """Traces of one student: `thoughts_NKd` are the vectors consumed. The states that they were made of stay on disk,
    as `hiddens_NKd`: nothing that reads traces asks for them."""

    rows: tuple[Trace, ...]
    thoughts_NKd: Tensor

    @property
    def student(self) -> str:
        return self.rows[0].student

    @property
    def steps(self) -> int:
        """K: how many thoughts each problem has."""
        return self.thoughts_NKd.shape[1]


def paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.parquet", folder / f"{name}.safetensors"


def write_part(folder: Path, number: int, rows: Sequence[Trace], vectors: dict[str, Tensor]) -> None:
    """One part, stamped; see `whole_part`."""
    table, tensors = paths(folder, f"{number:05}")
    write_atomic(tensors, save({name: vector.contiguous() for name, vector in vectors.items()}))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([_row(trace) for trace in rows], SCHEMA), sink)
    write_atomic(table, sink.getvalue().to_pybytes())
    for path in (tensors, table):
        stamp(path)


def whole_part(folder: Path, number: int) -> bool:
    """Whether a part is there as it was written; what a kill or a bad disk left is made again."""
    return all(intact(path) for path in paths(folder, f"{number:05}"))


def _row(trace: Trace) -> dict[str, Any]:
    """A trace as Parquet takes it: of its thoughts the tokens by name, maps as pairs."""
    thoughts = [
        {
            "step": t.step, "norm": t.norm, "cosine_to_previous": t.cosine_to_previous, "sparsity": t.sparsity,
            "entropy": t.entropy, "top": [{"token": token, "share": share} for token, share in t.top],
        }
        for t in trace.thoughts
    ]  # fmt: skip
    maps = {"outputs": list(trace.outputs.items()), "losses": list(trace.losses.items())}
    return {**{name: getattr(trace, name) for name in SCHEMA.names}, "thoughts": thoughts, **maps}


def join(parts: Path, count: int, folder: Path, name: str) -> None:
    """The table and the tensors of all parts, in their order, as `NAME.parquet` and `NAME.safetensors`."""
    table, tensors = paths(folder, name)
    with stream_atomic(tensors) as file:
        shapes: list[list[int]] = []
        for number in range(count):
            with safe_open(paths(parts, f"{number:05}")[1], "pt") as part:
                shapes.append(part.get_slice(VECTORS[0]).get_shape())
                kind = part.get_slice(VECTORS[0]).get_dtype()
        file.write(_header([sum(rows for rows, *_ in shapes), *shapes[0][1:]], kind))
        for vector in VECTORS:
            for number in range(count):
                held = load_file(paths(parts, f"{number:05}")[1])[vector]
                file.write(held.contiguous().view(torch.uint8).numpy().tobytes())
    with stream_atomic(table) as file, pq.ParquetWriter(file, SCHEMA) as writer:
        for number in range(count):
            writer.write_table(pq.read_table(paths(parts, f"{number:05}")[0]))


def _header(shape: list[int], kind: str) -> bytes:
    """What stands before the bytes of a safetensors file (its format: 8 bytes of length, then JSON)."""
    size = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8}[kind] * shape[0] * shape[1] * shape[2]
    told = {
        name: {"dtype": kind, "shape": shape, "data_offsets": [i * size, (i + 1) * size]}
        for i, name in enumerate(VECTORS)
    }
    text = json.dumps(told).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read(folder: Path, name: str) -> Traces:
    """The traces of one split. Raises `DataError` for a missing file, a missing thought, or rows of two students."""
    table, tensors = paths(folder, name)
    try:
        parts = pq.read_table(table, schema=SCHEMA).to_batches(max_chunksize=PART)
        with safe_open(tensors, "pt") as file:
            thoughts_NKd, shapes = file.get_tensor(VECTORS[0]), [file.get_slice(name).get_shape() for name in VECTORS]
    except (OSError, pa.ArrowException, SafetensorError) as error:
        told = str(error).splitlines()[0]
        raise DataError(
            f"{folder / name}: not traces ({told}): `stillroom trace` writes a table and its tensors"
        ) from None
    rows = tuple(_trace(row) for part in parts for row in part.to_pylist())
    _check(rows, thoughts_NKd, shapes, str(folder / name))
    return Traces(rows, thoughts_NKd)


def _trace(row: dict[str, Any]) -> Trace:
    thoughts = [{**t, "top": [(best["token"], best["share"]) for best in t["top"]]} for t in row["thoughts"]]
    return Trace(**{**row, "thoughts": thoughts, "outputs": dict(row["outputs"]), "losses": dict(row["losses"])})


def _check(rows: Sequence[Trace], thoughts_NKd: Tensor, shapes: Sequence[list[int]], where: str) -> None:
    again = "collect the traces again"
    if not rows:
        raise DataError(f"{where}: no trace in it; {again}")
    if shapes[0] != shapes[1] or len(rows) != len(thoughts_NKd):
        raise DataError(
            f"{where}: {len(rows)} rows, vectors for {len(thoughts_NKd)}: these files do not belong together"
        )
    count = thoughts_NKd.shape[1]
    for trace, thoughts_Kd in zip(rows, thoughts_NKd, strict=True):
        if [thought.step for thought in trace.thoughts] != list(range(count)):
            told = f"its statistics are of {len(trace.thoughts)} thoughts and its vectors of {count}"
            raise DataError(f"{where}: problem {trace.problem}: a thought is missing: {told}; {again}")
        if not bool(torch.isfinite(thoughts_Kd).all()):
            raise DataError(f"{where}: problem {trace.problem}: a thought is not finite; {again}")
    if len(students := {trace.student for trace in rows}) > 1:
        raise DataError(f"{where}: traces of {len(students)} students ({', '.join(sorted(students))}); {again}")
