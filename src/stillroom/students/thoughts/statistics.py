"""What can be said of a thought: its size, its turn from the one before, and the tokens that the head reads in it.

Legend: K steps, d model width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NEAR_ZERO = 0.01
"""A coordinate below it counts as zero in `Statistics.sparsity`, as in the founding work's traces."""


@dataclass(frozen=True)
class Statistics:
    """Of one vector: Euclidean norm, cosine to the step before, share of |x| < `NEAR_ZERO`, and what the head reads.

    `entropy` is that of the head's whole distribution, in nats; `top` holds token ids with their probabilities.
    """

    norm: float
    cosine_to_previous: float | None
    sparsity: float
    entropy: float
    top: tuple[tuple[int, float], ...]


@torch.inference_mode()
def statistics(vectors_Kd: Tensor, head: Callable[[Tensor], Tensor], top: int = 5) -> list[Statistics]:
    """Statistics of each step's vector: hidden states, or the thoughts made of them. `head` gives logits."""
    x_Kd = vectors_Kd.float()
    cosines = torch.nn.functional.cosine_similarity(x_Kd[1:], x_Kd[:-1], dim=1).tolist()
    logp_KV = head(vectors_Kd).float().log_softmax(1)
    best = logp_KV.exp().topk(top, dim=1)
    rows = zip(
        x_Kd.norm(dim=1).tolist(),
        [None, *cosines],
        (x_Kd.abs() < NEAR_ZERO).float().mean(1).tolist(),
        torch.special.entr(logp_KV.exp()).sum(1).tolist(),
        best.indices.tolist(),
        best.values.tolist(),
        strict=True,
    )
    return [
        Statistics(norm, cosine, sparsity, entropy, tuple(zip(ids, shares, strict=True)))
        for norm, cosine, sparsity, entropy, ids, shares in rows
    ]
