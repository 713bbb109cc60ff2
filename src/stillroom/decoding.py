"""Batched decoding of any causal language model: sorted by length, left-padded, with masks and position ids.

It knows token ids and nothing of what they mean; teachers, students and readers all decode here.

Legend: B rows of a batch, R rows still going, T tokens, N new tokens, E end tokens, V vocabulary.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from stillroom.errors import DataError

PLAIN = (DynamicLayer, DynamicSlidingWindowLayer)
"""The kinds of cache layers out of which single rows can be taken."""
NOTHING = -1


@dataclass(frozen=True)
class Completion:
    """The new tokens of one row, without the end token; `stopped` is false where the limit cut them off."""

    ids: list[int]
    stopped: bool


@dataclass(frozen=True)
class Sampling:
    """Draws instead of the likeliest token; each batch is seeded by `seed` and its first row."""

    temperature: float
    seed: int


def plan(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Rows in batches of like length, longest first (so that a batch too large for memory fails at once)."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    pad: int,
    ends: Sequence[int],
    sampling: Sampling | None = None,
) -> list[Completion]:
    """Completions of one batch of prompts (token ids), greedy unless told, each of at most `new_tokens` tokens.

    A row leaves the batch at its end token, so that the long answers of a batch do not drag the short ones along.
    Models whose cache cannot let a row go, and wrapped ones, are left to transformers' own `generate`.
    """
    longest = max(map(len, prompts))
    ids_BT = torch.full((len(prompts), longest), pad)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, longest - len(prompt) :] = 1
    ids_BT, mask_BT = ids_BT.to(model.device), mask_BT.to(model.device)
    if lets_rows_go(model):
        return _step_by_step(model, ids_BT, mask_BT, new_tokens, ends, sampling)
    return _generated(model, ids_BT, mask_BT, new_tokens, pad, ends, sampling)


def lets_rows_go(model: PreTrainedModel) -> bool:
    """Whether every layer keeps plain keys and values, row by row, and the model takes a cache from outside."""
    if not isinstance(model, PreTrainedModel) or "past_key_values" not in _takes(model):
        return False
    return all(type(layer) in PLAIN for layer in DynamicCache(config=model.config).layers)


def _takes(model: PreTrainedModel) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)


def _step_by_step(
    model: PreTrainedModel,
    ids_BT: Tensor,
    mask_BT: Tensor,
    new_tokens: int,
    ends: Sequence[int],
    sampling: Sampling | None,
) -> list[Completion]:
    draw = _drawing(sampling, model.device)
    takes, cache = _takes(model), DynamicCache(config=model.config)
    ends_E = torch.tensor(list(ends), device=ids_BT.device)
    found_BN = torch.full((len(ids_BT), new_tokens), NOTHING, device=ids_BT.device)
    rows_R = torch.arange(len(ids_BT), device=ids_BT.device)
    inputs_RT, mask_RT = ids_BT, mask_BT
    for step in range(new_tokens):
        more: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        if "position_ids" in takes:
            more["position_ids"] = (mask_RT.cumsum(1) - 1).clamp(min=0)[:, -inputs_RT.shape[1] :]
        out = model(input_ids=inputs_RT, attention_mask=mask_RT, past_key_values=cache, use_cache=True, **more)
        next_R = draw(finite(out.logits[:, -1].float(), model))
        found_BN[rows_R, step] = next_R
        (going_R,) = torch.nonzero(~torch.isin(next_R, ends_E), as_tuple=True)
        if not len(going_R):
            break
        if len(going_R) < len(rows_R):
            rows_R, next_R, mask_RT = rows_R[going_R], next_R[going_R], mask_RT[going_R]
            cache.batch_select_indices(going_R)
        inputs_RT, mask_RT = next_R[:, None], torch.nn.functional.pad(mask_RT, (0, 1), value=1)
    return [_cut([token for token in row if token != NOTHING], ends) for row in found_BN.tolist()]


def finite(logits: Tensor, model: PreTrainedModel) -> Tensor:
    """The same logits (…, V). Raises `DataError` where the largest is no number: any token would pass for it."""
    if not logits.amax(-1).isfinite().all():
        raise DataError(
            f"{model.name_or_path or type(model).__name__}: its logits hold NaN or infinity: weights are damaged, or "
            f"they overflow in {model.dtype}: fetch it again, or hold it in bfloat16 or float32"
        )
    return logits


def _drawing(sampling: Sampling | None, device: torch.device) -> Callable[[Tensor], Tensor]:
    """From logits (R, V) to the next tokens (R): the likeliest, or drawn from the softmax at a temperature."""
    if sampling is None:
        return lambda logits_RV: logits_RV.argmax(-1)
    generator, heat = torch.Generator(device).manual_seed(sampling.seed), sampling.temperature
    return lambda logits_RV: torch.multinomial((logits_RV / heat).softmax(-1), 1, generator=generator)[:, 0]


def _generated(
    model: PreTrainedModel,
    ids_BT: Tensor,
    mask_BT: Tensor,
    new_tokens: int,
    pad: int,
    ends: Sequence[int],
    sampling: Sampling | None,
) -> list[Completion]:
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=new_tokens, do_sample=False, pad_token_id=pad, eos_token_id=list(ends)
    )
    if sampling is not None:
        torch.manual_seed(sampling.seed)
        settings.update(do_sample=True, temperature=sampling.temperature, top_k=0, top_p=1.0)  # type: ignore[no-untyped-call]
    checked = LogitsProcessorList([lambda _, logits_BV: finite(logits_BV, model)])
    out_BT = model.generate(  # type: ignore[operator]
        input_ids=ids_BT, attention_mask=mask_BT, generation_config=settings, logits_processor=checked
    )
    return [_cut(row[ids_BT.shape[1] :], ends) for row in out_BT.tolist()]


def _cut(ids: list[int], ends: Sequence[int]) -> Completion:
    length = next((i for i, token in enumerate(ids) if token in ends), None)
    return Completion(ids[:length], length is not None)


def decode_all(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    pad: int,
    ends: Sequence[int],
    batch_size: int,
    skip: frozenset[int] = frozenset(),
    sampling: Sampling | None = None,
) -> Iterator[dict[int, Completion]]:
    """Completions batch by batch, keyed by row. A batch whose rows are all in `skip` is passed over.

    Batches depend on the prompts alone, never on `skip`: a run that is taken up again computes the same numbers.
    """
    for rows in plan([len(prompt) for prompt in prompts], batch_size):
        if not skip.issuperset(rows):
            drawn = Sampling(sampling.temperature, sampling.seed + rows[0]) if sampling else None
            done = decode(model, [prompts[row] for row in rows], new_tokens, pad, ends, drawn)
            yield dict(zip(rows, done, strict=True))
