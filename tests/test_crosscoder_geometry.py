"""Parallelograms by hand, and nulls that read null."""

from math import hypot

import numpy as np
import pytest
import torch

from stillroom.crosscoder.geometry import Shape, components, massive, parallelogram, shape
from stillroom.crosscoder.model import CrosscoderConfig, initial
from stillroom.crosscoder.nulls import stability
from stillroom.crosscoder.reading import last_activations
from toys import student


def test_the_loss_is_worked_by_hand() -> None:
    inputs = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    outputs = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    assert parallelogram(inputs, outputs).tolist() == [[0.0, 1.0], [1.0, 0.0]]  # ‖(3, −4)‖ / sqrt(9 + 16)


def test_a_common_shift_is_a_perfect_parallelogram_and_shuffled_pairs_are_not() -> None:
    words = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    found = shape(words, words + 3.0, None)
    assert found.loss.value == pytest.approx(0, abs=1e-6)
    assert found.null.low > 0.5
    assert len(found.cumulative) == len(found.shuffled) == 40 * 39 / 2
    assert found.cumulative[-1] < 1e-6 < 0.1 < found.shuffled[0]
    assert np.mean(found.shuffled) == pytest.approx(found.null.value)


def test_words_read_in_batches_are_those_read_alone() -> None:
    ann, texts = student(), [" 3", " 4 + 5", " 11", " 5 + 4"]
    together = last_activations(ann, texts, 1, "Ann has")
    for text, vector_D in zip(texts, together, strict=True):
        torch.testing.assert_close(last_activations(ann, [text], 1, "Ann has")[0], vector_D)


def apart(found: Shape) -> bool:
    """Whether loss and null differ by more than both intervals' errors together allow."""
    errors = ((interval.high - interval.low) / 2 for interval in (found.loss, found.null))
    return abs(found.loss.value - found.null.value) > hypot(*errors)


def words(seed: int) -> torch.Tensor:
    return torch.randn(40, 12, generator=torch.Generator().manual_seed(seed))


def test_unrelated_words_are_told_from_their_null_as_rarely_as_the_intervals_say() -> None:
    """5 % of 20 draws: more than 3 have a chance below 2 %."""
    assert sum(apart(shape(words(seed), words(100 + seed), None)) for seed in range(20)) <= 3
    assert all(apart(shape(words(seed), words(seed) + words(100 + seed), None)) for seed in range(20))


def test_unrelated_words_lie_about_1() -> None:
    for count in (None, 2, 10):
        assert shape(words(0), words(1), count).loss.value == pytest.approx(1, abs=0.15)


def test_an_interval_over_words_is_wider_than_one_over_pairs() -> None:
    words, others = (torch.randn(30, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = shape(words, others, None)
    naive = 2 * 1.96 * np.std(found.cumulative) / len(found.cumulative) ** 0.5
    assert found.loss.high - found.loss.low > 1.5 * naive


def test_massive_dimensions_are_dropped() -> None:
    words = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    outputs = words + 3.0
    loud = torch.randn(80, generator=torch.Generator().manual_seed(2)) * 1000
    words[:, 4], outputs[:, 4] = loud[:40], loud[40:]
    assert massive(torch.cat([words, outputs])).nonzero().tolist() == [[4]]
    assert shape(words, outputs, None).loss.value == pytest.approx(0, abs=1e-5)


def test_components_keep_what_varies_most() -> None:
    flat = torch.tensor([[10.0, 0.1], [-10.0, -0.1], [5.0, 0.1], [-5.0, -0.1]])
    assert components(flat, 1).abs().squeeze(1).tolist() == pytest.approx([10, 10, 5, 5], rel=0.01)


def test_too_few_words_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 word pairs, given 2"):
        shape(torch.zeros(2, 4), torch.zeros(2, 4), None)


def test_a_latent_is_stable_where_every_seed_has_it() -> None:
    one, two, three = (initial(CrosscoderConfig(expansion=2, k=1), 2, 16, seed) for seed in range(3))
    with torch.no_grad():
        two.decoder_FW[5] = 2 * one.decoder_FW[0]
        three.decoder_FW[9] = one.decoder_FW[0]
        two.decoder_FW[6] = one.decoder_FW[1]
    found = stability(one, [two, three], torch.tensor([0, 1]))
    assert found[0] == pytest.approx(1)
    assert found[1] < 0.9
