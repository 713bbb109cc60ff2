"""Statistics of shares and differences: Wilson, bootstrap, exact McNemar, Holm, pass@k, seeds as mean ± sd.

All intervals are 95 % unless said. Inputs are plain numbers or numpy arrays; nothing here knows what was measured.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

SMALLEST = 1e-300
"""What lies below, floats may round to 0."""


class Interval(NamedTuple):
    value: float
    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927). Raises ValueError unless 0 ≤ successes ≤ n and n > 0."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"wilson needs 0 <= successes <= n and n > 0, given {successes} of {n}")
    z = float(special.ndtri(0.5 + confidence / 2))
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(successes * (n - successes) / n + z * z / 4)
    low, high = centre - half, centre + half
    return Interval(successes / n, low if successes else 0.0, high if successes < n else 1.0)


def difference(strata: Sequence[tuple[int, int, int, int]]) -> Interval:
    """How much larger one share is than another, among what is otherwise alike.

    Each stratum is (successes a, of a, successes b, of b), the two drawn independently; their differences a − b are
    weighted as by Mantel and Haenszel (1959), so that neither side's mix of strata counts. The interval joins Wilson's
    limits (Zou, Huang and Zhang 2009); of one stratum it is method 10 of Newcombe (1998). Raises ValueError without a
    stratum, or where one is empty.
    """
    if not strata:
        raise ValueError("difference needs at least one stratum")
    weights = [m * n / (m + n) if m + n else 0.0 for _, m, _, n in strata]
    value = below = above = 0.0
    for (a, m, b, n), weight in zip(strata, weights, strict=True):
        one, two = wilson(a, m), wilson(b, n)
        part = weight / sum(weights)
        value += part * (one.value - two.value)
        below += part**2 * ((one.value - one.low) ** 2 + (two.high - two.value) ** 2)
        above += part**2 * ((one.high - one.value) ** 2 + (two.value - two.low) ** 2)
    return Interval(value, value - math.sqrt(below), value + math.sqrt(above))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test: were the `only_a + only_b` discordant pairs split by a fair coin?"""
    n = only_a + only_b
    return min(1.0, 2 * float(special.bdtr(min(only_a, only_b), n, 0.5)))


def p_value(p: float) -> str:
    """A p in three digits. One below the smallest floats is rounded to 0 by them, and is not 0."""
    return f"{p:.3g}" if p >= SMALLEST else f"< {SMALLEST:g}"


def bootstrap_mean(values: ArrayLike, seed: int = 0, resamples: int = 2000) -> Interval:
    """Percentile bootstrap interval of a mean over rows that are independent. Raises ValueError when empty."""
    data: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not data.size or not np.isfinite(data).all():
        raise ValueError(f"bootstrap_mean needs a non-empty row of finite numbers, given shape {data.shape}")
    rng = np.random.default_rng(seed)
    chunk = max(1, 4_000_000 // data.size)  # bounds memory at 32 MB
    means = [
        data[rng.integers(0, data.size, (min(chunk, resamples - start), data.size))].mean(axis=1)
        for start in range(0, resamples, chunk)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(data.mean()), float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> list[float]:
    """Adjusted p-values, in the order given, that bound the false discovery rate (Benjamini and Hochberg 1995)."""
    given = np.asarray(p_values, dtype=np.float64)
    return [float(p) for p in stats.false_discovery_control(given)] if given.size else []


def sign_test(above: ArrayLike, below: ArrayLike) -> NDArray[np.float64]:
    """One-sided exact p of the sign test, elementwise: would a fair coin put so many pairs above? 1 without pairs."""
    up, down = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.asarray(stats.binom.sf(up - 1, up + down, 0.5), dtype=np.float64)


def bootstrap_means(values_NC: ArrayLike, seed: int = 0, resamples: int = 1000) -> NDArray[np.float64]:
    """Mean and percentile interval of every column, rows drawn together: (3, C) of value, low, high.

    Raises ValueError when empty or not finite.
    """
    data: NDArray[np.float64] = np.asarray(values_NC, dtype=np.float64)
    if data.ndim != 2 or not len(data) or not np.isfinite(data).all():
        raise ValueError(f"bootstrap_means needs rows of finite numbers, given shape {data.shape}")
    rng = np.random.default_rng(seed)
    counts_RN = rng.multinomial(len(data), np.full(len(data), 1 / len(data)), resamples) / len(data)
    low, high = np.quantile(counts_RN @ data, [0.025, 0.975], axis=0)
    mean = data.mean(axis=0)
    return np.stack([mean, np.minimum(low, mean), np.maximum(high, mean)])


def bootstrap_ratio(above: ArrayLike, below: ArrayLike, seed: int = 0, resamples: int = 1000) -> Interval:
    """Percentile bootstrap interval of Σ above / Σ below over rows that are independent and drawn together.

    Raises ValueError when empty, not finite, or where a row below is not above 0.
    """
    rows: NDArray[np.float64] = np.stack([np.asarray(part, dtype=np.float64) for part in (above, below)], axis=-1)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all() or not (rows[:, 1] > 0).all():
        raise ValueError(f"bootstrap_ratio needs rows of finite numbers, above 0 below, given shape {rows.shape}")
    rng = np.random.default_rng(seed)
    top, bottom = (rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), resamples) @ rows).T
    value = float(rows[:, 0].sum() / rows[:, 1].sum())
    low, high = np.quantile(top / bottom, [0.025, 0.975])
    return Interval(value, min(float(low), value), max(float(high), value))


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation over seeds; the latter is 0 for a single seed."""
    data = np.asarray(values, dtype=np.float64)
    return float(data.mean()), float(data.std(ddof=1)) if data.size > 1 else 0.0


def pass_at_k(n: int, right: int, k: int) -> float:
    """The unbiased estimate of how likely one of `k` answers is right, from `right` of `n` (Chen et al. 2021, eq. 1).

    1 - C(n - right, k) / C(n, k). Raises ValueError unless 0 ≤ right ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= right <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= right <= n and 1 <= k <= n, given {right} of {n} and k={k}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)
