"""What a crosscoder reads: the activations of several models on the same tokens, shuffled across documents.

A source gives the activations of any of its documents; a pool of documents is held at a time, its tokens shuffled.
Which tokens an update sees is a pure function of its number. The first token of a document and tokens whose activation
is longer than twice the median (attention sinks) are left out: they would take the dictionary for themselves.

Legend: N tokens, M models, D width, T tokens of a document.
"""

import bisect
import functools
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from stillroom.activations import residual_stream
from stillroom.errors import DataError, TrainingError
from stillroom.students import Student
from stillroom.training import Batch, Batches

SINK = 2.0
"""How many medians long an activation may be."""
CALIBRATION = 20_000
"""Tokens from which mean, scale and median are taken."""


@dataclass(frozen=True)
class Tokens:
    """Activations of M models at N tokens, and where in which document each token stands."""

    x_NMD: Tensor
    document_N: Tensor
    position_N: Tensor
    token_N: Tensor

    def __len__(self) -> int:
        return len(self.token_N)

    def at(self, index: Tensor) -> "Tokens":
        return Tokens(self.x_NMD[index], self.document_N[index], self.position_N[index], self.token_N[index])


class Source(Protocol):
    """Documents of known lengths, whose activations can be had."""

    @property
    def models(self) -> tuple[str, ...]: ...
    @property
    def layer(self) -> int: ...
    @property
    def lengths(self) -> Sequence[int]: ...
    def read(self, documents: Sequence[int]) -> Tokens: ...


@dataclass(frozen=True)
class Live:
    """Activations made on the fly: every model reads the same token ids, `layer` of the residual stream is kept.

    Layer 0 is the embeddings, as in `activations.residual_stream`.
    """

    students: dict[str, Student]
    ids: Sequence[Sequence[int]]
    layer: int
    batch_size: int = 128

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.students)

    @property
    def lengths(self) -> Sequence[int]:
        return [len(row) for row in self.ids]

    @torch.inference_mode()
    def read(self, documents: Sequence[int]) -> Tokens:
        """Raises `DataError` for an activation that is not finite, with the model, the document and the position."""
        order = sorted(documents, key=lambda d: len(self.ids[d]))
        parts = [self._batch(order[start : start + self.batch_size]) for start in range(0, len(order), self.batch_size)]
        return Tokens(*(torch.cat([getattr(p, name) for p in parts]) for name in Tokens.__dataclass_fields__))

    def _batch(self, documents: Sequence[int]) -> Tokens:
        rows = [self.ids[d] for d in documents]
        longest = max(map(len, rows))
        ids_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])  # causal: what follows is unseen
        real_BT = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        seen = []
        for student in self.students.values():
            with residual_stream(student.model) as stream:
                student.model(input_ids=ids_BT.to(student.model.device), logits_to_keep=1, use_cache=False)
            seen.append(stream[self.layer].float().cpu()[real_BT])
        document_BT = torch.tensor(documents)[:, None].expand_as(ids_BT)
        position_BT = torch.arange(longest).expand_as(ids_BT)
        tokens = Tokens(torch.stack(seen, dim=1), document_BT[real_BT], position_BT[real_BT], ids_BT[real_BT])
        refuse_not_finite(tokens, self.models)
        return tokens


def one_reading(ids: Mapping[str, Sequence[Sequence[int]]]) -> Sequence[Sequence[int]]:
    """The documents that all models read alike. Raises `DataError` naming the two models and the first difference."""
    first, *others = ids
    for other in others:
        if len(ids[first]) != len(ids[other]):
            raise DataError(
                f"{first} reads {len(ids[first])} documents and {other} reads {len(ids[other])}: a crosscoder compares "
                "activations of the same tokens, so give both the same documents"
            )
        for number, (a, b) in enumerate(zip(ids[first], ids[other], strict=True)):
            if list(a) != list(b):
                at = next((i for i, (p, q) in enumerate(zip(a, b, strict=False)) if p != q), min(len(a), len(b)))
                raise DataError(
                    f"{first} and {other} read document {number} as different tokens, from position {at} on "
                    f"({first}: {list(a)[at : at + 4]}, {other}: {list(b)[at : at + 4]}): a crosscoder compares "
                    "activations of the same tokens, so choose two models with one tokenizer and one way of being asked"
                )
    return ids[first]


def refuse_not_finite(tokens: Tokens, models: Sequence[str]) -> None:
    bad = (~tokens.x_NMD.isfinite()).any(dim=2).nonzero()
    if len(bad):
        row, model = bad[0].tolist()
        raise DataError(
            f"{models[model]}: its activation of token {int(tokens.position_N[row])} of document "
            f"{int(tokens.document_N[row])} is not finite, and so are {len(bad) - 1} more: look at that model first"
        )


@dataclass(frozen=True)
class Normal:
    """How each model's activations are centred and scaled: by their mean, to a variance of 1 a dimension."""

    mean_MD: Tensor
    scale_M: Tensor
    median_M: Tensor
    """Median length of an activation, by which sinks are told."""

    def usable(self, tokens: Tokens) -> Tensor:
        """Which tokens (N) are neither first nor, in any model, longer than `SINK` medians."""
        long_N = (tokens.x_NMD.norm(dim=2) > SINK * self.median_M).any(dim=1)
        return torch.as_tensor((tokens.position_N > 0) & ~long_N)


def calibrate(source: Source, seed: int) -> Normal:
    """From documents drawn evenly, up to `CALIBRATION` tokens."""
    lengths = source.lengths  # once: a source counts its documents anew whenever it is asked
    order = random.Random(f"calibrate {seed}").sample(range(len(lengths)), len(lengths))
    seen = list(itertools.accumulate(lengths[d] for d in order))
    tokens = source.read(order[: bisect.bisect_left(seen, CALIBRATION) + 1])
    inner = tokens.at((tokens.position_N > 0).nonzero().squeeze(1))
    if not len(inner):
        raise DataError("no document has a second token, and the first of each is left out: give longer documents")
    median_M = inner.x_NMD.norm(dim=2).median(dim=0).values
    kept = inner.x_NMD[(inner.x_NMD.norm(dim=2) <= SINK * median_M).all(dim=1)].double()
    mean_MD = kept.mean(dim=0)
    variance_M = (kept - mean_MD).square().mean(dim=(0, 2))
    if not bool((variance_M > 0).all()):
        still = [name for name, value in zip(source.models, variance_M.tolist(), strict=True) if not value > 0]
        raise DataError(f"{', '.join(still)}: activations do not vary, so there is nothing to learn: choose a layer")
    return Normal(mean_MD.float(), variance_M.rsqrt().float(), median_M)


@dataclass
class Freshness:
    """Which tokens training has seen. A buffer that hands out the same again while others wait is an error."""

    total: int
    distinct: int = 0
    drawn: int = 0
    _seen: set[int] = field(default_factory=set)
    _sums: dict[float, int] = field(default_factory=dict)

    def note(self, tokens: Tokens) -> None:
        """One pool's tokens. Raises `TrainingError` where the source stopped refreshing: a pool of other tokens with
        the activations of an earlier one, or of tokens that were all seen while others were not."""
        keys = (tokens.document_N.long() * (1 << 32) + tokens.position_N.long()).tolist()
        before, self.drawn = self.distinct, self.drawn + len(keys)
        self._seen.update(keys)
        self.distinct = len(self._seen)
        which = hash(frozenset(keys))
        stale = self._sums.setdefault(float(tokens.x_NMD.double().sum()), which) != which
        if stale or self.distinct == before < self.total:
            raise TrainingError(
                f"the activations stopped refreshing: after {self.drawn} tokens a pool brought none that was not there "
                f"before, though only {before} of {self.total} were seen: look at the source, and train anew"
            )


class Mixer:
    """Batches of normalised activations (B, M · D), shuffled across the documents of a pool.

    The pools of an epoch, and the updates that each is good for, follow from the documents' lengths and the seed.
    """

    def __init__(self, source: Source, normal: Normal, batch_size: int, seed: int, pool_tokens: int = 400_000) -> None:
        self.source, self.normal, self.batch_size, self.seed, self.pool_tokens = (
            source, normal, batch_size, seed, pool_tokens,
        )  # fmt: skip
        usable = sum(max(0, length - 1) for length in source.lengths)
        if usable < batch_size:
            raise DataError(f"{usable} tokens do not fill a batch of {batch_size}: give more documents or lower it")
        self.freshness = Freshness(sum(source.lengths))
        self.pools = functools.lru_cache(maxsize=2)(self._pools)
        self.pool = functools.lru_cache(maxsize=1)(self._pool)
        self.held = functools.lru_cache(maxsize=1)(self._held)
        self.per_epoch = sum(updates for _, updates in self.pools(0))

    def _pools(self, epoch: int) -> list[tuple[list[int], int]]:
        """The documents of each pool, and how many updates they fill; what is left over waits for another epoch."""
        lengths = self.source.lengths
        order = random.Random(f"{self.seed} {epoch}").sample(range(len(lengths)), len(lengths))
        count = max(1, round(sum(lengths) / self.pool_tokens))
        groups = [order[i * len(order) // count : (i + 1) * len(order) // count] for i in range(count)]
        return [(group, sum(max(0, lengths[d] - 1) for d in group) // self.batch_size) for group in groups]

    def _pool(self, epoch: int, number: int) -> Tensor:
        documents, _ = self.pools(epoch)[number]
        held_NW = self.held(tuple(sorted(documents)))
        seed = random.Random(f"{self.seed} {epoch} {number}").getrandbits(62)
        return held_NW[torch.randperm(len(held_NW), generator=torch.Generator().manual_seed(seed))]

    def _held(self, documents: tuple[int, ...]) -> Tensor:
        """The usable activations (N, M · D) of some documents, normalised; a single pool is read but once."""
        tokens = self.source.read(documents)
        self.freshness.note(tokens)
        x_NMD = tokens.x_NMD[self.normal.usable(tokens)]
        if not len(x_NMD):
            raise DataError(f"all tokens of documents {documents[:3]}, … are first ones or sinks: look at the source")
        return ((x_NMD - self.normal.mean_MD) * self.normal.scale_M[:, None]).flatten(1)

    def batch(self, update: int) -> Tensor:
        """Normalised activations of update `update`; a pool that sinks made short begins again."""
        epoch, left = divmod(update, self.per_epoch)
        for number, (_, updates) in enumerate(self.pools(epoch)):
            if left < updates:
                pool_NW = self.pool(epoch, number)
                rows = (torch.arange(self.batch_size) + left * self.batch_size) % len(pool_NW)
                return pool_NW[rows]
            left -= updates
        raise AssertionError("an epoch holds its updates")

    def batches(self, terms: Sequence[str]) -> Batches:
        def batch(update: int, part: int, parts: int) -> Batch:
            x_BW = self.batch(update)
            x_BW = x_BW[part * len(x_BW) // parts : (part + 1) * len(x_BW) // parts]
            return Batch({"x_BW": x_BW}, dict.fromkeys(terms, len(x_BW)), (f"tokens of update {update}",))

        return batch
