"""What a crosscoder reads: the activations of several models on the same tokens, shuffled across documents.

A source gives the activations of any of its documents; a pool of documents is held at a time, its tokens shuffled.
Which tokens an update sees is a pure function of its number. The first token of a document and tokens whose activation
is longer than twice the median (attention sinks) are left out: they would take the dictionary for themselves.

Legend: N tokens, B of an update, M models, D width, W = M · D, T tokens of a document or of a source.
"""

import bisect
import functools
import hashlib
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
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
AT_ONCE = 20_000
"""Tokens that are looked through at once for what is not finite: all of them together would be held twice."""


@dataclass(frozen=True)
class Tokens:
    """Activations of M models at N tokens, and where in which document each token stands."""

    x_NMD: Tensor
    document_N: Tensor
    position_N: Tensor
    token_N: Tensor

    def __len__(self) -> int:
        return len(self.token_N)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.x_NMD, self.document_N, self.position_N, self.token_N

    def at(self, index: Tensor) -> "Tokens":
        return Tokens(*(tensor[index] for tensor in self.tensors))


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
        batches = (order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size))
        return Tokens(*joined((self._batch(rows).tensors for rows in batches), sum(len(self.ids[d]) for d in order)))

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


def joined(parts: Iterable[tuple[Tensor, ...]], count: int) -> tuple[Tensor, ...]:
    """The rows of all parts, `count` of them, written as they come: beside their sum, parts would hold all twice."""
    found: tuple[Tensor, ...] = ()
    filled = 0
    for part in parts:
        found = found or tuple(tensor.new_empty(count, *tensor.shape[1:]) for tensor in part)
        for whole, tensor in zip(found, part, strict=True):
            whole[filled : filled + len(tensor)] = tensor
        filled += len(part[0])
    return found


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
    bad = torch.cat([~part.isfinite().all(dim=2) for part in torch.split(tokens.x_NMD, AT_ONCE)]).nonzero()
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
    refuse_not_finite(tokens, source.models)  # one model's NaN would leave none of the others' tokens either
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
    """Whether a source hands out what it was asked for, and not the same activations under other names."""

    lengths: Sequence[int]
    documents: set[int] = field(default_factory=set)
    """All that were handed out."""
    _texts: dict[bytes, bytes] = field(default_factory=dict)
    """By the hash of a document's activations, that of its token ids."""
    _pools: dict[bytes, tuple[int, ...]] = field(default_factory=dict)

    def note(self, asked: tuple[int, ...], tokens: Tokens) -> None:
        """One pool, of documents in their order. Raises `TrainingError` where the source stopped refreshing: it gives
        other tokens than those of these documents, one document's activations for another text, or a whole pool's
        for other documents. That two documents of one text have the same activations is as it should be."""
        order = (tokens.document_N.long() * (1 << 32) + tokens.position_N.long()).argsort()
        wanted = [(document, position) for document in asked for position in range(self.lengths[document])]
        given = zip(tokens.document_N[order].tolist(), tokens.position_N[order].tolist(), strict=True)
        if list(given) != wanted:
            raise _stale(f"asked for documents {asked[0]} to {asked[-1]}, it gave other tokens than theirs")
        pool = hashlib.blake2b(digest_size=16)
        for document, row_T in zip(asked, order.split_with_sizes([self.lengths[d] for d in asked]), strict=True):
            held, text = _digest(tokens.x_NMD[row_T]), _digest(tokens.token_N[row_T])
            if self._texts.setdefault(held, text) != text:
                raise _stale(f"document {document} has the activations of a document with another text")
            pool.update(held)
        if self._pools.setdefault(pool.digest(), asked) != asked:
            raise _stale(f"all documents from {asked[0]} to {asked[-1]} have the activations of others")
        self.documents.update(asked)


def _digest(tensor: Tensor) -> bytes:
    return hashlib.blake2b(tensor.contiguous().flatten().view(torch.uint8).numpy().data, digest_size=16).digest()


def _stale(what: str) -> TrainingError:
    return TrainingError(f"the activations stopped refreshing: {what}: look at the source, and train anew")


class Mixer:
    """Batches of normalised activations (B, M · D), shuffled across the documents of a pool.

    The pools of an epoch, and the updates that each is good for, follow from the documents' lengths and the seed.
    """

    def __init__(self, source: Source, normal: Normal, batch_size: int, seed: int, pool_tokens: int = 400_000) -> None:
        self.source, self.normal, self.batch_size, self.seed, self.pool_tokens = (
            source, normal, batch_size, seed, pool_tokens,
        )  # fmt: skip
        lengths = source.lengths
        self.freshness = Freshness(lengths)
        self.first_T = torch.tensor([0, *itertools.accumulate(lengths)])
        self.pools = functools.lru_cache(maxsize=2)(self._pools)
        self.order = functools.lru_cache(maxsize=1)(self._order)
        self.held = functools.lru_cache(maxsize=1)(self._held)
        self.per_epoch = sum(updates for _, updates in self.pools(0))
        if not self.per_epoch:
            usable = sum(max(0, length - 1) for length in lengths)
            raise DataError(f"{usable} tokens do not fill a batch of {batch_size}: give more documents or lower it")

    def _pools(self, epoch: int) -> list[tuple[tuple[int, ...], int]]:
        """The documents of each pool, sorted, and how many updates they fill; what is left over waits for an epoch."""
        lengths = self.source.lengths
        order = random.Random(f"{self.seed} {epoch}").sample(range(len(lengths)), len(lengths))
        count = max(1, round(sum(lengths) / self.pool_tokens))
        groups = [tuple(sorted(order[i * len(order) // count : (i + 1) * len(order) // count])) for i in range(count)]
        return [(group, sum(max(0, lengths[d] - 1) for d in group) // self.batch_size) for group in groups]

    def _order(self, epoch: int, number: int, size: int) -> Tensor:
        """In which order (N) the tokens of a pool are gone through: a pool is gigabytes, and is not held once more for
        being shuffled."""
        seed = random.Random(f"{self.seed} {epoch} {number}").getrandbits(62)
        return torch.randperm(size, generator=torch.Generator().manual_seed(seed))

    def _held(self, documents: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The usable activations (N, M · D) of some documents, normalised, and which of the source's tokens they are;
        a single pool is read but once."""
        tokens = self.source.read(documents)
        refuse_not_finite(tokens, self.source.models)
        self.freshness.note(documents, tokens)
        tokens = tokens.at(self.normal.usable(tokens))
        if not len(tokens):
            raise DataError(f"all tokens of documents {documents[:3]}, … are first ones or sinks: look at the source")
        tokens.x_NMD.sub_(self.normal.mean_MD).mul_(self.normal.scale_M[:, None])  # in place: `at` has made a copy
        return tokens.x_NMD.flatten(1), self.first_T[tokens.document_N.long()] + tokens.position_N

    def batch(self, update: int) -> tuple[Tensor, Tensor]:
        """Normalised activations (B, M · D) of update `update`, and which of the source's tokens (B) they are, counted
        through its documents; a pool that sinks made short begins again."""
        epoch, left = divmod(update, self.per_epoch)
        for number, (documents, updates) in enumerate(self.pools(epoch)):
            if left < updates:
                held_NW, token_N = self.held(documents)
                at_B = (torch.arange(self.batch_size) + left * self.batch_size) % len(held_NW)
                row_B = self.order(epoch, number, len(held_NW))[at_B]
                return held_NW[row_B], token_N[row_B]
            left -= updates
        raise AssertionError("an epoch holds its updates")

    def batches(self, terms: Sequence[str]) -> Batches:
        def batch(update: int, part: int, parts: int) -> Batch:
            x_BW, token_B = self.batch(update)
            own = slice(part * len(x_BW) // parts, (part + 1) * len(x_BW) // parts)
            tensors = {"x_BW": x_BW[own], "token_B": token_B[own]}
            return Batch(tensors, dict.fromkeys(terms, len(tensors["x_BW"])), (f"tokens of update {update}",))

        return batch
