"""Attention over a tree: a question's keys stand once, and every branch that leaves it brings only its own.

A transformers model calls `_attend` in place of its own attention while `tree_attention` lasts, and its keys are kept
here. Nothing is known here of thoughts or tokens: only of positions that are appended, and of who sees which.

Legend: B questions, V branches of each, N branches in a pass, H query heads, G key heads, R = H / G query heads to a
key head, D head width, L tokens of the longest question, T columns of the stem, S of the branches, C = T + S, d model
width; b and l are the questions of one part of the first pass and the tokens of its longest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from stillroom.errors import UsageError

NAME = "stillroom_tree"
UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some models add to their scores and this attention does not know."""
SUITED = "choose a model whose attention transformers can replace, such as GPT-2, Llama or Qwen"
FIRST_PASS = 1024
"""Tokens of questions that a CPU reads in one pass: more would not stay in its caches. Other devices read more."""


class Past(Protocol):
    """What was read before, and what this pass adds to it."""

    def attend(self, layer: int, q_BHND: Tensor, k_BGND: Tensor, v_BGND: Tensor) -> Tensor:
        """Keep this pass's keys and values; return what its (already scaled) queries read, shaped as they are."""
        ...


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, *, scaling: float, **given: Any
) -> tuple[Tensor, None]:
    if "past" not in given or any(given.get(name) is not None for name in UNKNOWN):
        raise UsageError(f"{type(module).__name__} attends in a way of its own: {SUITED}")
    past: Past = given["past"]
    read_BHND = past.attend(module.layer_idx, query * scaling, key, value)  # type: ignore[arg-type]
    return read_BHND.transpose(1, 2).to(query.dtype), None


AttentionInterface.register(NAME, _attend)  # and no mask function beside it: then the model builds no mask at all


@contextmanager
def tree_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within, the model's passes are those of a `Stem` or of `Branches`. Raises `UsageError` where that cannot be."""
    before = model.config._attn_implementation  # noqa: SLF001 - transformers offers no other way to ask
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:  # noqa: SLF001
        raise UsageError(f"{type(model).__name__} attends in a way of its own: {SUITED}")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _pass(model: PreTrainedModel, past: Past, inputs_BNd: Tensor, positions_BN: Tensor) -> Tensor:
    """Last hidden states BNd: the model's body alone, since most passes need no logits."""
    body: Any = model.base_model
    hidden_BNd: Tensor = body(inputs_embeds=inputs_BNd, position_ids=positions_BN, use_cache=False, past=past)[0]
    return hidden_BNd


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype.itemsize >= 4 else x.float()


def _kept(x: Tensor) -> Tensor:
    """On a CPU keys are kept in float32: products with one query are several times faster there than in bfloat16."""
    return _wide(x) if _on_cpu(x) else x


def _weights(scores: Tensor, bias: Tensor) -> Tensor:
    """Attention weights, their softmax in float32 or better: types are never mixed, which is slow on a CPU."""
    return torch.softmax(_wide(scores).add_(bias), dim=-1).to(scores.dtype)


def _bias(seen: Tensor) -> Tensor:
    """What is added to scores: 0 where a position is seen, minus infinity where not."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)


def _causal(q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
    """Each position reads itself and those before it. On a CPU plain products are about twice as fast as SDPA."""
    size, groups, length, width = k_BGLD.shape
    if not _on_cpu(q_BHLD):
        read_BHLD: Tensor = nn.functional.scaled_dot_product_attention(
            q_BHLD, k_BGLD, v_BGLD, is_causal=True, scale=1.0, enable_gqa=q_BHLD.shape[1] != groups
        )
        return read_BHLD
    before_LL = torch.ones(length, length, dtype=torch.bool).tril()
    scores_BGRLL = (q_BHLD.reshape(size, groups, -1, width) @ k_BGLD.transpose(2, 3)).view(
        size, groups, -1, length, length
    )
    return (_weights(scores_BGRLL, _bias(before_LL)).flatten(2, 3) @ v_BGLD).view(q_BHLD.shape)


class Stem:
    """Questions and, in the columns after them, later positions that all branches of a question may share.

    Questions are padded on the right, where no token of theirs sees the padding: the first pass needs no mask, and
    positions are counted from 0 in every row. `seen_BT` tells the columns that hold a position.
    """

    def __init__(self, model: PreTrainedModel, seen_BL: Tensor, room: int) -> None:
        self.model = model
        self.questions = seen_BL.shape[1]
        self.filled = 0
        self.seen_BT = nn.functional.pad(seen_BL, (0, room))
        self._reading = slice(0)
        self._bias_BT = torch.empty(0)
        self.keys_BGTD: dict[int, Tensor] = {}
        self.values_BGTD: dict[int, Tensor] = {}

    def read(self, inputs_BLd: Tensor) -> Tensor:
        """Last hidden states BLd of the questions."""
        hidden_BLd = torch.zeros_like(inputs_BLd)
        part = max(1, (FIRST_PASS if _on_cpu(inputs_BLd) else 16 * FIRST_PASS) // self.questions)
        for start in range(0, len(inputs_BLd), part):
            self._reading = slice(start, start + part)
            length = int(self.seen_BT[self._reading].sum(1).max())
            inputs_bld = inputs_BLd[self._reading, :length]
            positions_bl = torch.arange(length, device=inputs_BLd.device).expand(inputs_bld.shape[:2])
            hidden_BLd[self._reading, :length] = _pass(self.model, self, inputs_bld, positions_bl)
        self.filled = self.questions
        return hidden_BLd

    def append(self, inputs_Bd: Tensor) -> Tensor:
        """Last hidden states Bd at one more position of every question."""
        positions_B1 = self.seen_BT.sum(1, keepdim=True)
        self.seen_BT[:, self.filled] = True
        self.filled += 1
        self._bias_BT = _bias(self.seen_BT[:, : self.filled])
        return _pass(self.model, self, inputs_Bd[:, None], positions_B1)[:, 0]

    def attend(self, layer: int, q_BHND: Tensor, k_BGND: Tensor, v_BGND: Tensor) -> Tensor:
        if not self.filled:
            for kept, new_BGND in ((self.keys_BGTD, k_BGND), (self.values_BGTD, v_BGND)):
                if layer not in kept:
                    _, groups, _, width = new_BGND.shape
                    kept[layer] = _kept(new_BGND).new_zeros(len(self.seen_BT), groups, self.seen_BT.shape[1], width)
                kept[layer][self._reading, :, : new_BGND.shape[2]] = new_BGND
            return _causal(q_BHND, k_BGND, v_BGND)
        keys_BGTD, values_BGTD = (side[layer][:, :, : self.filled] for side in (self.keys_BGTD, self.values_BGTD))
        keys_BGTD[:, :, -1:], values_BGTD[:, :, -1:] = k_BGND, v_BGND
        q_BGRD = _kept(q_BHND).reshape(*k_BGND.shape[:2], -1, k_BGND.shape[-1])
        weights_BGRT = _weights(q_BGRD @ keys_BGTD.transpose(2, 3), self._bias_BT[:, None, None])
        return (weights_BGRT @ values_BGTD).reshape(q_BHND.shape)


class Branches:
    """V continuations of every question of a stem, which see of it what `seen_BVT` says and nothing of one another.

    The queries of all branches of a question meet its keys in one product, and their own keys in another; one softmax
    runs over both. `room` is the most positions that a branch may take.
    """

    def __init__(self, stem: Stem, seen_BVT: Tensor, room: int) -> None:
        self.stem = stem
        self.filled = 0
        self.seen_BVC = nn.functional.pad(seen_BVT, (0, room))
        self._bias_BVC = _bias(self.seen_BVC)
        self.keys_VBGSD: dict[int, Tensor] = {}
        self.values_VBGSD: dict[int, Tensor] = {}
        for layer, keys_BGTD in stem.keys_BGTD.items():
            size, groups, _, width = keys_BGTD.shape
            self.keys_VBGSD[layer] = keys_BGTD.new_zeros(seen_BVT.shape[1], size, groups, room, width)
            self.values_VBGSD[layer] = torch.zeros_like(self.keys_VBGSD[layer])

    def append(self, inputs_BNd: Tensor, real_N: Tensor) -> Tensor:
        """Last hidden states BNd at one more position of the first N branches.

        Where `real_N` is false a branch does not take the position: nothing sees it, the count of positions stays, and
        the hidden state returned for it is to be thrown away.
        """
        active = len(real_N)
        positions_BN = self.seen_BVC[:, :active].sum(2)
        column = self.stem.filled + self.filled
        self.seen_BVC[:, :active, column] = real_N
        self._bias_BVC[:, :active, column] = _bias(real_N)
        self.filled += 1
        return _pass(self.stem.model, self, inputs_BNd, positions_BN)

    def attend(self, layer: int, q_BHND: Tensor, k_BGND: Tensor, v_BGND: Tensor) -> Tensor:
        size, groups, active, width = k_BGND.shape
        stem, end = self.stem.filled, self.stem.filled + self.filled
        keys_NBGSD, values_NBGSD = (
            side[layer][:active, :, :, : self.filled] for side in (self.keys_VBGSD, self.values_VBGSD)
        )
        keys_NBGSD[..., -1, :] = k_BGND.permute(2, 0, 1, 3)
        values_NBGSD[..., -1, :] = v_BGND.permute(2, 0, 1, 3)
        q_BGRND = _kept(q_BHND).reshape(size, groups, -1, active, width)
        scores_BGRNC = q_BGRND.new_empty(*q_BGRND.shape[:4], end)
        keys_BGTD, values_BGTD = (side[layer][:, :, :stem] for side in (self.stem.keys_BGTD, self.stem.values_BGTD))
        scores_BGRNC[..., :stem] = (q_BGRND.flatten(2, 3) @ keys_BGTD.transpose(2, 3)).view(*q_BGRND.shape[:4], stem)
        scores_BGRNC[..., stem:] = (q_BGRND.permute(3, 0, 1, 2, 4) @ keys_NBGSD.transpose(3, 4)).permute(1, 2, 3, 0, 4)
        weights_BGRNC = _weights(scores_BGRNC, self._bias_BVC[:, None, None, :active, :end])
        of_stem_BGRND = (weights_BGRNC[..., :stem].flatten(2, 3) @ values_BGTD).view(q_BGRND.shape)
        of_own_NBGRD = weights_BGRNC[..., stem:].permute(3, 0, 1, 2, 4) @ values_NBGSD
        return of_stem_BGRND.add_(of_own_NBGRD.permute(1, 2, 3, 0, 4)).reshape(q_BHND.shape)
