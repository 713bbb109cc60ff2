"""Paired activations on disk: harvested once in shards, and read by any number of epochs and dictionaries.

The folder names the models by the content of their weights: activations of another model, of another layer or of other
documents would be learned from without a sign that anything is wrong, so they are refused. So is a shard that is not
what was written: its checksum is in the index, and is compared before it is first read.

Legend: N tokens, M models, D width.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from stillroom.crosscoder.data import Live, Tokens, joined
from stillroom.errors import DataError
from stillroom.files import read_json, sha256, write_json
from stillroom.harvest import ROWS, VECTORS, write_shards

INDEX, SHARDS = "index.json", "shards"
AT_ONCE = 256
"""Documents that are read from the models before they are written."""


@dataclass(frozen=True)
class Harvested:
    """The activations of a `Live` source, from disk; see `harvested`."""

    folder: Path
    models: tuple[str, ...]
    layer: int
    ids: Sequence[Sequence[int]]
    rows: int
    checksums: dict[str, str]
    """SHA-256 of each shard, by name."""
    _intact: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def lengths(self) -> Sequence[int]:
        return [len(row) for row in self.ids]

    def read(self, documents: Sequence[int]) -> Tokens:
        """Raises `DataError` for a shard that is missing or damaged."""
        starts = [0, *accumulate(self.lengths)]
        parts = ((part,) for d in sorted(documents) for part in self._rows(starts[d], starts[d + 1]))
        told = [(d, at, token) for d in sorted(documents) for at, token in enumerate(self.ids[d])]
        document_N, position_N, token_N = torch.tensor(told).T
        (x_NMD,) = joined(parts, len(told))
        return Tokens(x_NMD, document_N, position_N, token_N)

    def _rows(self, start: int, stop: int) -> Iterator[Tensor]:
        while start < stop:
            number, first = divmod(start, self.rows)
            last = min(self.rows, first + stop - start)
            with safe_open(self._shard(f"{number:06}.safetensors"), framework="pt") as file:
                yield file.get_slice(VECTORS)[first:last]
            start += last - first

    def _shard(self, name: str) -> Path:
        path = self.folder / SHARDS / name
        if name not in self._intact:
            if not path.is_file() or sha256(path) != self.checksums.get(name):
                raise DataError(f"{path}: is not what was written: remove {self.folder}, and harvest again")
            self._intact.add(name)
        return path


def harvested(live: Live, folder: Path, rows: int = ROWS) -> Harvested:
    """The activations of a source, written to `folder` unless they are there; the index is written last.

    Raises `DataError` for a folder that holds those of other models, of another layer or of other documents, naming
    both sides, and for activations that are not finite.
    """
    asked = _about(live, rows)
    if not (folder / INDEX).exists():
        order = range(len(live.ids))
        shutil.rmtree(folder / SHARDS, ignore_errors=True)  # of a run that was killed before it wrote the index
        parts = (_in_order(live, order[i : i + AT_ONCE]) for i in range(0, len(order), AT_ONCE))
        write_shards(folder / SHARDS, parts, rows)
        checksums = {path.name: sha256(path) for path in sorted((folder / SHARDS).iterdir())}
        write_json(folder / INDEX, {**asked, "checksums": checksums})
    held = _index(folder, asked)
    refuse_other(held, asked, folder)
    return Harvested(folder, live.models, live.layer, live.ids, rows, held["checksums"])


def _index(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """What the folder says of itself. Raises `DataError` for an index that was harmed, or that is an earlier one's."""
    try:
        held = read_json(folder / INDEX)
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise DataError(f"{folder}: its index is not what was written: remove the folder, and harvest again")
    if lacking := [what for what in (*asked, "checksums") if what not in held]:
        raise DataError(f"{folder}: its index has no {', '.join(lacking)}: remove the folder, and harvest again")
    return held


def _in_order(live: Live, documents: Sequence[int]) -> Tensor:
    tokens = live.read(documents)
    return tokens.x_NMD[torch.argsort(tokens.document_N, stable=True)]  # within a document they are in order


def _about(live: Live, rows: int) -> dict[str, Any]:
    read = hashlib.sha256(repr([list(row) for row in live.ids]).encode()).hexdigest()[:16]
    weights = {name: fingerprint(student.model) for name, student in live.students.items()}
    return {"models": weights, "layer": live.layer, "documents": read, "tokens": sum(live.lengths), "rows": rows}


def fingerprint(model: PreTrainedModel) -> str:
    """Of all weights, by name, shape and content."""
    told = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        told.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        told.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return told.hexdigest()[:16]


def refuse_other(held: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    """Raises `DataError` where a folder's index is not that of what is asked for."""
    here, wanted = (", ".join(f"{name} ({key})" for name, key in told["models"].items()) for told in (held, asked))
    if list(held["models"].values()) != list(asked["models"].values()):
        raise DataError(
            f"{folder}: holds activations of {here}, and was asked for those of {wanted}: name the models that it was "
            "made of, or choose another folder"
        )
    for what in ("layer", "documents", "rows"):
        if held[what] != asked[what]:
            raise DataError(
                f"{folder}: its {what} of activations of {here} is {held[what]}, and {asked[what]} was asked for: "
                "choose another folder"
            )
