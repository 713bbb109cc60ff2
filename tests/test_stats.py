"""Statistics against numbers worked by hand."""

import math
from math import comb

import numpy as np
import pytest

from stillroom.stats import (
    benjamini_hochberg,
    bootstrap_mean,
    bootstrap_ratio,
    difference,
    holm,
    mcnemar,
    mean_sd,
    p_value,
    wilson,
)

Z = 1.959963984540054


@pytest.mark.parametrize(("successes", "n"), [(7, 10), (1, 3), (97, 300)])
def test_wilson_is_the_formula_of_1927(successes: int, n: int) -> None:
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    assert wilson(successes, n) == pytest.approx((share, centre - half, centre + half), abs=1e-12)


def test_wilson_of_none_and_of_all() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.0, 0.27753279), abs=1e-7)
    assert wilson(10, 10) == pytest.approx((1.0, 1 - 0.27753279, 1.0), abs=1e-7)
    assert wilson(10, 10, confidence=0.5).low > wilson(10, 10).low


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_share(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="wilson needs"):
        wilson(successes, n)


def test_the_difference_of_two_shares_is_newcombe_s() -> None:
    found = difference([(56, 70, 48, 80)])  # Newcombe 1998, table II, example (a), method 10
    assert found.value == pytest.approx(0.2)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)
    assert difference([(5, 5, 5, 5)]).value == 0


def test_a_difference_is_taken_stratum_by_stratum() -> None:
    """Simpson's reversal: a is ahead in both, and behind where they are thrown together."""
    strata = [(9, 10, 80, 100), (30, 100, 2, 10)]
    assert difference([(39, 110, 82, 110)]).value < 0
    assert difference(strata).value == pytest.approx(0.1)  # both weigh 1000 / 110
    alone = [difference([one]) for one in strata]
    low = 0.1 - math.hypot(*(one.value - one.low for one in alone)) / 2
    assert difference(strata).low == pytest.approx(low)
    assert difference(strata).high == pytest.approx(0.1 + math.hypot(*(one.high - one.value for one in alone)) / 2)
    with pytest.raises(ValueError, match="at least one stratum"):
        difference([])


def test_mcnemar_is_exact_and_two_sided() -> None:
    assert mcnemar(1, 8) == pytest.approx(2 * (comb(9, 0) + comb(9, 1)) / 2**9) == pytest.approx(0.0390625)
    assert mcnemar(8, 1) == mcnemar(1, 8)
    assert mcnemar(0, 10) == pytest.approx(2 / 2**10)
    assert mcnemar(5, 5) == pytest.approx(1.0)
    assert mcnemar(0, 0) == 1.0


def test_holm_is_worked_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_the_bootstrap_covers_the_true_mean_about_95_times_of_100() -> None:
    rng = np.random.default_rng(1)
    rows = [bootstrap_mean(rng.normal(2.0, 1.0, 40), seed=i, resamples=400) for i in range(200)]
    covered = sum(row.low <= 2.0 <= row.high for row in rows)
    assert 180 <= covered <= 198


def test_the_bootstrap_is_the_same_for_the_same_seed_and_exact_for_a_constant() -> None:
    assert bootstrap_mean([1, 0, 0, 1]) == bootstrap_mean([1, 0, 0, 1])
    assert bootstrap_mean(np.arange(20.0) ** 2, seed=1) != bootstrap_mean(np.arange(20.0) ** 2, seed=2)
    assert tuple(bootstrap_mean([3, 3, 3])) == (3.0, 3.0, 3.0)
    assert bootstrap_mean([1.0, 2.0, 6.0]).value == 3.0


@pytest.mark.parametrize("values", [[], [[1.0]], [1.0, math.nan], [math.inf]])
def test_the_bootstrap_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="bootstrap_mean needs"):
        bootstrap_mean(values)


def test_mean_and_sample_deviation_over_seeds() -> None:
    assert mean_sd([2.0, 4.0, 6.0]) == pytest.approx((4.0, 2.0))
    assert mean_sd([5.0]) == (5.0, 0.0)


def test_benjamini_hochberg_is_hand_worked() -> None:
    """0.01 · 4 / 1, 0.02 · 4 / 2, 0.03 · 4 / 3 and 0.5 · 4 / 4; each at most what the next larger one gives."""
    assert benjamini_hochberg([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.04, 0.04])
    assert benjamini_hochberg([]) == []


def test_the_interval_of_a_ratio_holds_it_and_is_a_point_where_all_rows_agree() -> None:
    assert bootstrap_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == (0.5, 0.5, 0.5)
    found = bootstrap_ratio([1.0, 0.0, 3.0, 1.0], [2.0, 4.0, 6.0, 8.0])
    assert found.value == 0.25  # of sums, where the mean of ratios is .28
    assert found.low < 0.25 < found.high <= 0.5
    for above, below in (([], []), ([1.0], [0.0]), ([float("nan")], [1.0])):
        with pytest.raises(ValueError, match="bootstrap_ratio needs"):
            bootstrap_ratio(above, below)


def test_a_p_too_small_for_a_float_is_not_0() -> None:
    assert mcnemar(1200, 0) == 0.0
    assert [p_value(p) for p in (0.0390625, 2.26e-216, 0.0)] == ["0.0391", "2.26e-216", "< 1e-300"]
