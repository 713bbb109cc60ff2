"""Whether a function moves all words alike: a − b of one pair should be a − b of another (the parallelogram).

Baek & Tegmark (arXiv 2503.03730) read single words at position 0 and keep two principal components, where an attention
sink's massive dimensions decide everything. Here both readings are told, with those dimensions dropped; the null pairs
inputs with outputs of other words; and the interval resamples words, since pairs of pairs that share a word are no
independent samples.

Legend: P word pairs (input, output), D width, C components, R resamples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillroom.stats import Interval

MASSIVE = 10.0
"""A dimension is massive when its mean size is this many times the median dimension's."""
RESAMPLES = 1000


def parallelogram(input_PD: Tensor, output_PD: Tensor) -> Tensor:
    """‖a_i − b_i − a_j + b_j‖ / sqrt(‖a_i‖² + ‖b_i‖² + ‖a_j‖² + ‖b_j‖²) of every two pairs: (P, P), 0 on the diagonal.

    0 for a perfect parallelogram, about 1 for independent vectors around 0.
    """
    moved_PD = input_PD - output_PD
    size_P = input_PD.square().sum(dim=1) + output_PD.square().sum(dim=1)
    apart_PP: Tensor = (moved_PD[:, None] - moved_PD).norm(dim=2)
    return apart_PP / (size_P[:, None] + size_P).sqrt().clamp(min=1e-12)


def massive(vectors_ND: Tensor) -> Tensor:
    """Which dimensions (D) are massive."""
    size_D = vectors_ND.abs().mean(dim=0)
    return torch.as_tensor(size_D > MASSIVE * size_D.median())


def components(vectors_ND: Tensor, count: int | None) -> Tensor:
    """The vectors, centred, in their first `count` principal components; centred alone with None."""
    centred_ND = vectors_ND - vectors_ND.mean(dim=0)
    if count is None:
        return centred_ND
    _, _, direction_CD = torch.linalg.svd(centred_ND, full_matrices=False)
    return torch.as_tensor(centred_ND @ direction_CD[:count].T)


class Shape(NamedTuple):
    """The mean loss with its interval over words, and the same for shuffled pairs; of both each pair of pairs' loss,
    sorted."""

    loss: Interval
    null: Interval
    cumulative: Sequence[float]
    shuffled: Sequence[float]


def shape(input_PD: Tensor, output_PD: Tensor, count: int | None, seed: int = 0) -> Shape:
    """Over P ≥ 3 word pairs, without massive dimensions and in `count` principal components of inputs and outputs.

    Raises ValueError for fewer pairs. A word pair that is drawn twice brings no loss with itself.
    """
    pairs = len(input_PD)
    if pairs < 3:
        raise ValueError(f"a parallelogram's interval needs at least 3 word pairs, given {pairs}")
    both_ND = torch.cat([input_PD, output_PD]).double()
    flat_NC = components(both_ND[:, ~massive(both_ND)], count)
    rng = np.random.default_rng(seed)
    order = _derangement(rng, pairs)
    loss_PP = parallelogram(flat_NC[:pairs], flat_NC[pairs:]).numpy()
    null_PP = parallelogram(flat_NC[:pairs], flat_NC[pairs:][order]).numpy()
    above = np.triu_indices(pairs, 1)
    curves = (np.sort(of_PP[above]).tolist() for of_PP in (loss_PP, null_PP))
    return Shape(_over_words(loss_PP, rng), _over_words(null_PP, rng), *curves)


def _derangement(rng: np.random.Generator, count: int) -> np.ndarray:
    """A drawn order in which nothing stays in its place: a random cycle."""
    cycle = rng.permutation(count)
    order = np.empty(count, dtype=np.int64)
    order[cycle] = np.roll(cycle, 1)
    return order


def _over_words(loss_PP: np.ndarray, rng: np.random.Generator) -> Interval:
    """The mean above the diagonal, and its bootstrap interval over words."""
    pairs = len(loss_PP)
    different_PP = 1 - np.eye(pairs)
    weight_RP = rng.multinomial(pairs, np.full(pairs, 1 / pairs), RESAMPLES).astype(float)
    total_R, sum_R = (((weight_RP @ of_PP) * weight_RP).sum(axis=1) for of_PP in (different_PP, loss_PP))
    means = (sum_R / np.where(total_R > 0, total_R, 1))[total_R > 0]
    low, high = np.quantile(means, [0.025, 0.975])
    value = loss_PP.sum() / (pairs * (pairs - 1))
    return Interval(float(value), float(low), float(high))
