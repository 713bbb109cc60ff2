"""Batched decoding of any causal language model: sorted by length, left-padded, with masks and position ids.

It knows token ids and nothing of what they mean; teachers, students and readers all decode here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel


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
    """Completions of one batch of prompts (token ids), greedy unless told, each of at most `new_tokens` tokens."""
    longest = max(map(len, prompts))
    ids_BT = torch.full((len(prompts), longest), pad)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, longest - len(prompt) :] = 1
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=new_tokens, do_sample=False, pad_token_id=pad, eos_token_id=list(ends)
    )
    if sampling is not None:
        torch.manual_seed(sampling.seed)
        settings.update(do_sample=True, temperature=sampling.temperature, top_k=0, top_p=1.0)  # type: ignore[no-untyped-call]
    out_BT = model.generate(  # type: ignore[operator]
        input_ids=ids_BT.to(model.device), attention_mask=mask_BT.to(model.device), generation_config=settings
    )
    return [_cut(row[longest:], ends) for row in out_BT.tolist()]


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
