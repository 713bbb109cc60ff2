"""What each latent is: whose it is, whether that is an artefact of sparsity, when it fires, and on what.

NRN and Δ_norm compare decoder norms. L1 can shrink one of them to nothing though the model holds the feature (complete
shrinkage), or split a feature in two latents (latent decoupling): latent scaling asks the activations themselves.

Legend: N tokens, M models (the first is the reference, the last the subject), D width, F latents, K chosen ones, C
categories, T the strongest tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillroom.crosscoder.data import Tokens
from stillroom.crosscoder.model import Crosscoder

CHUNK = 4096
"""Tokens that are encoded at once."""
DENSE = 0.1
"""A latent is dense that fires at more than this share of tokens."""
SHARED, SPECIFIC = (0.4, 0.6), 0.9
"""Bands of Δ_norm (Minder et al. 2025)."""
SHRUNK, DECOUPLED = 0.2, 0.5
"""A latent of one model alone is genuine where ν_ε and ν_r lie below these."""


def nrn(decoder_FMD: Tensor, p: float = 1) -> Tensor:
    """‖d_b‖ / (‖d_a‖ + ‖d_b‖) of each latent (F), a the first model and b the last; ½ where both are 0.

    The public code of Baek & Tegmark (arXiv 2503.03730) takes the 1-norm, as is done here unless asked.
    """
    norm_FM = torch.linalg.vector_norm(decoder_FMD, ord=p, dim=2)
    both_F = norm_FM[:, 0] + norm_FM[:, -1]
    return torch.where(both_F > 0, norm_FM[:, -1] / both_F, 0.5)


def delta_norm(decoder_FMD: Tensor) -> Tensor:
    """½ (1 + (‖d_b‖ − ‖d_a‖) / max(‖d_a‖, ‖d_b‖)) of each latent (F): 1 is b's alone, 0 is a's alone, ½ is shared.

    Minder et al. 2025, arXiv 2504.02922, eq. 3.
    """
    norm_FM = decoder_FMD.norm(dim=2)
    largest_F = torch.maximum(norm_FM[:, 0], norm_FM[:, -1])
    return 0.5 * (1 + torch.where(largest_F > 0, (norm_FM[:, -1] - norm_FM[:, 0]) / largest_F, 0.0))


def chunks(crosscoder: Crosscoder, tokens: Tokens) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(rows, normalised activations (n, M, D), latents' values (n, F)) of at most `CHUNK` tokens at a time."""
    for start in range(0, len(tokens), CHUNK):
        rows = slice(start, start + CHUNK)
        x_NMD = tokens.x_NMD[rows]
        yield rows, crosscoder.normalise(x_NMD), crosscoder.encode(x_NMD)


class Firing(NamedTuple):
    """Over some tokens: how often each latent fires, its summed, summed squared and largest value, and how often it
    fires within each category of tokens."""

    tokens: int
    count_F: Tensor
    mass_F: Tensor
    squares_F: Tensor
    largest_F: Tensor
    category_CF: Tensor

    @property
    def frequency(self) -> Tensor:
        return self.count_F / self.tokens

    @property
    def live(self) -> Tensor:
        return self.count_F > 0


def firing(crosscoder: Crosscoder, tokens: Tokens, categories: Mapping[str, Tensor] = {}) -> Firing:
    """`categories` name masks (N) over the tokens."""
    shape = crosscoder.latents
    count_F, mass_F, squares_F, largest_F = (torch.zeros(shape) for _ in range(4))
    category_CF = torch.zeros(len(categories), shape)
    none_CN = torch.zeros(0, len(tokens))
    mask_CN = torch.stack(list(categories.values())).float() if categories else none_CN
    for rows, _, value_NF in chunks(crosscoder, tokens):
        fires_NF = (value_NF > 0).float()
        count_F += fires_NF.sum(dim=0)
        mass_F += value_NF.sum(dim=0)
        squares_F += value_NF.square().sum(dim=0)
        largest_F = torch.maximum(largest_F, value_NF.amax(dim=0))
        category_CF += mask_CN[:, rows] @ fires_NF
    return Firing(len(tokens), count_F, mass_F, squares_F, largest_F, category_CF)


class Scaling(NamedTuple):
    """ν_ε and ν_r of each latent (F): how much of what it writes to the subject the reference holds too, in what the
    dictionary leaves unexplained there, and in what the reconstruction holds. NaN where a latent never fires."""

    error_F: Tensor
    reconstruction_F: Tensor


def latent_scaling(crosscoder: Crosscoder, tokens: Tokens, subject: int = -1) -> Scaling:
    """ν = β_reference / β_subject, where β_m minimises Σ_x ‖β f(x) d − y_m(x)‖² for the subject's decoder row d.

    The targets y_m are, for ν_ε, the error without the latent's own part, x_m − (x̂_m − f d_m), and for ν_r the whole
    reconstruction x̂_m; all in the normalised space of each model (Minder et al. 2025, arXiv 2504.02922, section 3).
    `subject` is the model whose decoder is looked for in both: the last, or 0 for the latents of the first.
    """
    decoder_FMD = crosscoder.decoders()
    reference = 0 if subject == -1 else -1
    squares_F = torch.zeros(crosscoder.latents)
    error_FMD, written_FMD = torch.zeros_like(decoder_FMD), torch.zeros_like(decoder_FMD)
    bias_MD = crosscoder.decoder_bias_W.detach().view(crosscoder.models, crosscoder.width)
    for _, x_NMD, value_NF in chunks(crosscoder, tokens):
        written_NMD = torch.einsum("nf,fmd->nmd", value_NF, decoder_FMD) + bias_MD
        error_FMD += torch.einsum("nf,nmd->fmd", value_NF, x_NMD - written_NMD)
        written_FMD += torch.einsum("nf,nmd->fmd", value_NF, written_NMD)
        squares_F += value_NF.square().sum(dim=0)
    without_FMD = error_FMD + squares_F[:, None, None] * decoder_FMD
    along_FD = decoder_FMD[:, subject]

    def ratio(target_FMD: Tensor) -> Tensor:
        dot_FM = torch.einsum("fd,fmd->fm", along_FD, target_FMD)  # what divides both β is the same, and drops out
        return torch.where(squares_F > 0, dot_FM[:, reference] / dot_FM[:, subject], torch.nan)

    return Scaling(ratio(without_FMD), ratio(written_FMD))


def genuine(scaling: Scaling) -> Tensor:
    """Latents (F) that latent scaling does not flag: ν_ε < .2 and ν_r < .5."""
    return (scaling.error_F < SHRUNK) & (scaling.reconstruction_F < DECOUPLED)


class Kinds(NamedTuple):
    """Masks (F) of live latents by Δ_norm; `reference` and `subject` are those of one model alone."""

    reference: Tensor
    shared: Tensor
    subject: Tensor


def kinds(decoder_FMD: Tensor, live_F: Tensor) -> Kinds:
    delta_F = delta_norm(decoder_FMD)
    shared_F = (delta_F >= SHARED[0]) & (delta_F <= SHARED[1])
    return Kinds(live_F & (delta_F <= 1 - SPECIFIC), live_F & shared_F, live_F & (delta_F >= SPECIFIC))


class Explained(NamedTuple):
    """Of each document (C): Σ ‖x − x̂‖² and Σ ‖x − x̄‖² of each model, active latents, tokens."""

    error_CM: Tensor
    variance_CM: Tensor
    active_C: Tensor
    tokens_C: Tensor


def explained_by_document(crosscoder: Crosscoder, tokens: Tokens) -> Explained:
    """x̄ is the mean over all tokens; sums are in float64."""
    _, inverse, counts = np.unique(tokens.document_N.numpy(), return_inverse=True, return_counts=True)
    of_N, tokens_C = torch.from_numpy(inverse), torch.from_numpy(counts)
    error_CM = torch.zeros(len(tokens_C), crosscoder.models, dtype=torch.float64)
    active_C = torch.zeros(len(tokens_C), dtype=torch.float64)
    for rows, _, value_NF in chunks(crosscoder, tokens):
        difference_NMD = tokens.x_NMD[rows] - crosscoder.decode(value_NF)
        error_CM.index_add_(0, of_N[rows], difference_NMD.double().square().sum(dim=2))
        active_C.index_add_(0, of_N[rows], (value_NF > 0).sum(dim=1).double())
    centred_NMD = (tokens.x_NMD - tokens.x_NMD.mean(dim=0)).double()
    variance_CM = torch.zeros_like(error_CM).index_add_(0, of_N, centred_NMD.square().sum(dim=2))
    return Explained(error_CM, variance_CM, active_C, tokens_C.double())


def explained(crosscoder: Crosscoder, tokens: Tokens) -> tuple[Tensor, float]:
    """(explained variance of each model (M), active latents a token): 1 − Σ ‖x − x̂‖² / Σ ‖x − x̄‖²."""
    found = explained_by_document(crosscoder, tokens)
    return 1 - found.error_CM.sum(dim=0) / found.variance_CM.sum(dim=0), float(found.active_C.sum()) / len(tokens)


class Context(NamedTuple):
    """A token at which a latent is strongest: in which document, where, and how strong."""

    document: int
    position: int
    token: int
    value: float


def top_contexts(
    crosscoder: Crosscoder, tokens: Tokens, latents: Sequence[int], count: int = 10
) -> dict[int, list[Context]]:
    """For each latent the tokens at which it is largest, strongest first; those at which it is silent are left out."""
    value_NK = torch.cat([value_NF[:, list(latents)] for _, _, value_NF in chunks(crosscoder, tokens)])
    best = value_NK.topk(min(count, len(value_NK)), dim=0)
    found = {}
    for latent, index_T, value_T in zip(latents, best.indices.T, best.values.T, strict=True):
        at = tokens.at(index_T)
        told = (at.document_N.tolist(), at.position_N.tolist(), at.token_N.tolist(), value_T.tolist())
        found[latent] = [Context(*row) for row in zip(*told, strict=True) if row[-1] > 0]
    return found


def chosen(nrn_F: Tensor, fired_F: Tensor, share: float, above: float = 0.5) -> Tensor:
    """Indices of the latents with NRN above ½ whose firing count in a category is in the top `share` of those that fire
    there at all (Baek & Tegmark 2025: shares of .5 to 20 %)."""
    active = fired_F[fired_F > 0]
    if not len(active):
        return torch.empty(0, dtype=torch.long)
    bar = active.float().quantile(1 - share)
    return ((fired_F > 0) & (fired_F >= bar) & (nrn_F > above)).nonzero().squeeze(1)
