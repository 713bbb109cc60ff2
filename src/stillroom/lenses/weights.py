"""Weight differences: how far each module moved, ‖W_s − W_r‖ / ‖W_r‖ (Frobenius), and where the change lies.

The interval is a bootstrap over the module's rows (its output neurons). Nulls: the difference of a model with itself,
and, where there is one, the difference between a student and its re-seeded twin; for shares, what an even spread over
the parameters would give.

Of every matrix inside the blocks also its spectrum: spectral norm and effective rank of the difference, the cosine
between before and after, and the angles between the spans of the leading columns. These are of the whole matrix, of
which nothing was sampled, so their interval is the point; their null is a random change of the same size. A student
that is the base with LoRA's factors is measured by the factors themselves, which merging would round.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from stillroom.config import Config
from stillroom.lenses.reading import finite
from stillroom.lenses.selection import invalid
from stillroom.lenses.spectra import (
    cosine,
    effective_rank,
    factor_rows,
    gini,
    half_in,
    principal_angles,
    random_like,
    singular_values,
)
from stillroom.lenses.subjects import BASE, Factors, Subjects
from stillroom.records import Finding, Null
from stillroom.stats import Interval

RESAMPLES = 1000
Floats = NDArray[np.float64]


class WeightsConfig(Config):
    name: Literal["weights"] = "weights"
    seed: int = 0
    directions: int = Field(4, ge=1)
    """How many leading columns the angles are told of."""
    largest: int = Field(1 << 25, ge=1)
    """Matrices with more numbers are left out of the spectra, which take the cube of their width."""


def row_squares(matrix: Tensor) -> Floats:
    """The squared norm of each row, in float64; a vector counts as rows of one number."""
    flat = matrix.detach().double().reshape(matrix.shape[0], -1)
    return np.asarray(flat.square().sum(dim=1).cpu().numpy(), dtype=np.float64)


def relative_norm(difference: Floats, reference: Floats, seed: int) -> Interval:
    """sqrt(Σ difference / Σ reference) over squared row norms, with its bootstrap interval over rows.

    A reference that is all zero (as a bias may be) gives 0 where nothing changed and infinity where something did.
    """
    if not difference.any():
        return Interval(0.0, 0.0, 0.0)  # as resampling would find, at length
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(reference), np.full(len(reference), 1 / len(reference)), RESAMPLES)
    low, high = np.quantile(np.sqrt(_ratio(counts @ difference, counts @ reference)), [0.025, 0.975], method="nearest")
    return Interval(float(np.sqrt(_ratio(difference.sum(), reference.sum()))), float(low), float(high))


def _ratio(top: Floats | np.float64, bottom: Floats | np.float64) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(top) == 0, 0.0, np.asarray(top) / np.asarray(bottom))


def layer_of(name: str) -> int | None:
    """The number of the decoder block that a parameter belongs to (1 is the first), None outside of them."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) + 1 if found else None


def look(config: WeightsConfig, subjects: Subjects) -> list[Finding]:
    """Findings for every two students. Raises `DataError` where a weight is NaN or infinite."""
    weights = shared({name: dict(student.model.named_parameters()) for name, student in subjects.students.items()})
    for who, own in weights.items():
        for name, tensor in own.items():
            finite(tensor, f"{who}'s weight {name}")
    findings: list[Finding] = []
    for reference, subject in subjects.pairs():
        factors = subjects.corrections.get(subject, {}) if reference == BASE else {}
        findings += diff(weights, reference, subject, subjects.twins, config.seed, factors)
        findings += spectra(weights, reference, subject, config, factors)
    return findings


def shared(weights: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """The rows that all have: tokens that one student alone was given are no difference between it and another."""
    rows = {name: min(len(own[name]) for own in weights.values()) for name in next(iter(weights.values()))}
    return {who: {name: own[name][:count] for name, count in rows.items()} for who, own in weights.items()}


def diff(
    weights: Mapping[str, Mapping[str, Tensor]],
    reference: str,
    subject: str,
    twins: Mapping[str, str],
    seed: int,
    factors: Mapping[str, Factors] = {},
) -> Iterator[Finding]:
    """Findings for each module, for each layer as a whole, for each layer's share of the squared change, and for how
    few modules hold it. Where `factors` has a module's change, they stand for it."""
    names = list(weights[reference])
    size = {name: row_squares(weights[reference][name]) for name in names}
    moved = {
        name: factor_rows(factors[name])
        if name in factors
        else row_squares(weights[subject][name] - weights[reference][name])
        for name in names
    }
    controls = {"self-diff": (reference, reference), **{f"twin of {old}": (old, new) for new, old in twins.items()}}

    def nulls(group: list[str]) -> tuple[Null, ...]:
        return tuple(
            Null(name=control, **measure(weights[a], weights[b], group, seed)._asdict())
            for control, (a, b) in controls.items()
        )

    groups: dict[tuple[int | None, str], list[str]] = {(layer_of(n), _module(n)): [n] for n in names}
    for name in names:
        groups.setdefault((layer_of(name), "all"), []).append(name)
    total = sum(moved[name].sum() for name in names)
    parameters = sum(weights[reference][name].numel() for name in names)
    for (layer, module), group in groups.items():
        difference = np.concatenate([moved[name] for name in group])
        common = {
            "lens": "weights",
            "subject": subject,
            "reference": reference,
            "layer": layer,
            "module": module,
            "position": "",
            "n": len(difference),
        }
        value = relative_norm(difference, np.concatenate([size[name] for name in group]), seed)
        yield Finding(**common, metric="relative difference", **value._asdict(), nulls=nulls(group))
        if module == "all" and total:
            part = share(difference, total, seed)
            even = sum(weights[reference][name].numel() for name in group) / parameters
            null = Null(name="even spread over parameters", value=even, low=even, high=even)
            yield Finding(**common, metric="share of squared change", **part._asdict(), nulls=(null,))

    if total:
        yield from concentration(
            reference,
            subject,
            np.array([moved[name].sum() for name in names]),
            np.array([weights[reference][name].numel() for name in names], dtype=np.float64),
            seed,
        )


def concentration(reference: str, subject: str, moved: Floats, sizes: Floats, seed: int) -> Iterator[Finding]:
    """Gini's coefficient of the modules' squared changes, and how many of them hold half; bootstrapped over modules."""
    n = len(moved)
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    for metric, told in (("Gini of the squared change", gini), ("modules that hold half of the change", half_in)):
        value, even = told(moved), told(sizes)
        low, high = np.quantile([told(moved[rows]) for rows in drawn], [0.025, 0.975])
        null = Null(name="even spread over parameters", value=even, low=even, high=even)
        yield Finding(
            lens="weights",
            subject=subject,
            reference=reference,
            layer=None,
            module="every module",
            position="",
            metric=metric,
            value=value,
            n=n,
            low=min(low, value),
            high=max(high, value),
            nulls=(null,),
        )


def spectra(
    weights: Mapping[str, Mapping[str, Tensor]],
    reference: str,
    subject: str,
    config: WeightsConfig,
    factors: Mapping[str, Factors] = {},
) -> Iterator[Finding]:
    """Spectral norm, effective rank, cosine and angles of every matrix inside the blocks."""
    for name, before in weights[reference].items():
        layer = layer_of(name)
        if layer is None or before.ndim != 2 or before.numel() > config.largest:
            continue
        after = weights[subject][name]
        change = after - before
        noise = random_like(change, config.seed)
        own_S = singular_values(factors.get(name, change))
        k = min(config.directions, *before.shape)
        angles, random_angles = (principal_angles(before, m, k) for m in (after, before + noise.to(before)))
        told = {
            "spectral norm of the difference": (_largest(own_S), _largest(singular_values(noise))),
            "effective rank of the difference": (effective_rank(own_S), effective_rank(singular_values(noise))),
            "cosine": (cosine(before, after), cosine(before, before + noise.to(before))),
            f"largest of {k} principal angles (radians)": (angles[-1], random_angles[-1]),
            f"mean of {k} principal angles (radians)": (angles.mean(), random_angles.mean()),
        }
        address = {
            "lens": "weights", "subject": subject, "reference": reference, "layer": layer, "module": _module(name),
            "position": "", "n": before.numel(),
        }  # fmt: skip
        for metric, (value, null) in told.items():
            if np.isnan(value):
                yield invalid("a matrix of zeros has no direction", **address, metric=metric)
                continue
            nulls = (Null(name="random change of the same size", value=null, low=null, high=null),)
            yield Finding(**address, metric=metric, value=value, low=value, high=value, nulls=nulls)


def _largest(singular_S: Floats) -> float:
    return float(singular_S.max(initial=0))


def measure(before: Mapping[str, Tensor], after: Mapping[str, Tensor], group: list[str], seed: int) -> Interval:
    """The relative difference between two models over a group of parameters taken together."""
    difference = np.concatenate([row_squares(after[name] - before[name]) for name in group])
    return relative_norm(difference, np.concatenate([row_squares(before[name]) for name in group]), seed)


def share(difference: Floats, total: float, seed: int) -> Interval:
    """Σ difference / (Σ difference + the rest), bootstrapped over the rows of `difference`."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(difference), np.full(len(difference), 1 / len(difference)), RESAMPLES)
    sums = counts @ difference
    low, high = np.quantile(sums / (total - difference.sum() + sums), [0.025, 0.975])
    return Interval(float(difference.sum() / total), float(low), float(high))


def _module(name: str) -> str:
    """`model.layers.0.self_attn.q_proj.weight` → `self_attn.q_proj`."""
    return re.sub(r"^.*?\.\d+\.|^model\.|\.weight$", "", name)
