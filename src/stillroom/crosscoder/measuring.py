"""Findings of one pair of models: each number of its crosscoder beside the same number of its nulls.

Legend: C documents, M models, F latents.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillroom.crosscoder.data import Tokens
from stillroom.crosscoder.features import (
    DENSE,
    Firing,
    delta_norm,
    explained_by_document,
    firing,
    genuine,
    kinds,
    latent_scaling,
    nrn,
)
from stillroom.crosscoder.model import Crosscoder
from stillroom.records import Finding, Null
from stillroom.stats import Interval, bootstrap_mean, bootstrap_ratio, wilson


@dataclass(frozen=True)
class Address:
    """What all findings of one pair share."""

    subject: str
    reference: str
    layer: int

    def finding(self, metric: str, found: Interval, n: int, nulls: Sequence[Null] = (), position: str = "") -> Finding:
        return Finding(
            lens="crosscoder", subject=self.subject, reference=self.reference, layer=self.layer, n=n,
            module="residual stream", position=position, metric=metric, nulls=tuple(nulls), **found._asdict(),
        )  # fmt: skip


@dataclass(frozen=True)
class Described:
    """One crosscoder on tokens that it was not trained on."""

    crosscoder: Crosscoder
    fires: Firing
    nrn_F: Tensor
    delta_F: Tensor
    error_F: Tensor
    reconstruction_F: Tensor
    measures: dict[str, tuple[Interval, int]]
    categories: dict[str, int]
    """The tokens of each category, in the order of the rows of `fires.category_CF`."""

    def at(self, category: str) -> Tensor:
        """How often each latent (F) fires at the category's tokens; never where no token is of it."""
        if category not in self.categories:
            return torch.zeros(self.crosscoder.latents)
        return self.fires.category_CF[list(self.categories).index(category)]


def describe(crosscoder: Crosscoder, tokens: Tokens, categories: Mapping[str, Tensor] = {}) -> Described:
    """NRN, Δ_norm and ν of every latent, and what they come to: in the means of ν, a ratio that a small denominator
    throws anywhere, what lies beyond −1 and 2 counts as those."""
    fires = firing(crosscoder, tokens, categories)
    live_F, decoder_FMD = fires.live, crosscoder.decoders()
    by_C = explained_by_document(crosscoder, tokens)
    scaling = latent_scaling(crosscoder, tokens)
    found, live, every = kinds(decoder_FMD, live_F), max(1, int(live_F.sum())), crosscoder.latents
    sure = int((found.subject & genuine(scaling)).sum())
    left_CM = by_C.variance_CM - by_C.error_CM
    ratios = {
        "explained variance, reference": (left_CM[:, 0], by_C.variance_CM[:, 0]),
        "explained variance, subject": (left_CM[:, -1], by_C.variance_CM[:, -1]),
        "active latents a token": (by_C.active_C, by_C.tokens_C),
    }
    counted = {
        "dead latents": (every - int(live_F.sum()), every),
        "dense latents": (int((fires.frequency > DENSE).sum()), every),
        "latents of the reference alone": (int(found.reference.sum()), live),
        "shared latents": (int(found.shared.sum()), live),
        "latents of the subject alone": (int(found.subject.sum()), live),
        "latents of the subject alone that latent scaling confirms": (sure, live),
    }
    means = {
        "mean NRN": nrn(decoder_FMD)[live_F],
        "mean NRN, 2-norm": nrn(decoder_FMD, 2)[live_F],
        "mean distance of NRN from ½": (nrn(decoder_FMD)[live_F] - 0.5).abs(),
        "mean ν of the error": scaling.error_F[live_F],
        "mean ν of the reconstruction": scaling.reconstruction_F[live_F],
    }
    measures: dict[str, tuple[Interval, int]] = {}
    for name, (above_C, below_C) in ratios.items():
        varied_C = below_C > 0
        if varied_C.any():
            interval = bootstrap_ratio(above_C[varied_C].numpy(), below_C[varied_C].numpy())
            measures[name] = (interval, int(varied_C.sum()))
    measures |= {name: (wilson(count, n), n) for name, (count, n) in counted.items()}
    for name, values in means.items():
        finite = values[values.isfinite()]
        if len(finite):
            measures[name] = (bootstrap_mean(finite.clamp(-1, 2).numpy()), len(finite))
    return Described(
        crosscoder,
        fires,
        nrn(decoder_FMD),
        delta_norm(decoder_FMD),
        scaling.error_F,
        scaling.reconstruction_F,
        measures,
        {name: int(mask_N.sum()) for name, mask_N in categories.items()},
    )


def beside(address: Address, real: Described, nulls: Mapping[str, Described]) -> Iterator[Finding]:
    """Every measure of the real crosscoder, with the same of each null."""
    for metric, (found, n) in real.measures.items():
        others = {name: null.measures[metric][0] for name, null in nulls.items() if metric in null.measures}
        told = [Null(name=name, **value._asdict()) for name, value in others.items()]
        yield address.finding(metric, found, n, told)
