"""Stepwise internalisation: which tokens are gone at which update, how many more by chance, and nothing else new."""

import math

import pytest
import torch

from stillroom.errors import ConfigError
from stillroom.students.batches import IGNORED, Example, lesson_batches
from stillroom.students.chains import Chain
from stillroom.students.sft import SftObjective
from stillroom.students.stepwise import (
    StepwiseConfig,
    drawn_ahead,
    removed,
    resets,
    shortened,
    starts,
    stepwise_batches,
)
from toys import MODELS, PAD

CHAIN = Chain("p", [4, 5], [24], [[6, 7, 8], [9, 10, 11], [12, 13]], [26], [27, 28, 1], 0)
EXACT = StepwiseConfig(delta=3, remove_all_from=7, smoothing=None)
"""Stages that remove 0, 3, 6 and all of the tokens."""
CHAINS = [
    Chain(
        f"p{i}", [4 + (5 * i + j) % 20 for j in range(2 + i % 4)], [24],
        [[5 + (i + j + k) % 18 for k in range(3)] for j in range(i % 4)], [26], [27, 4 + i, 1], 1,
    )
    for i in range(8)
]  # fmt: skip


def batches(config: StepwiseConfig, updates: int, chains: list[Chain] = CHAINS, size: int = 8):
    return stepwise_batches(chains, [len(c.prompt) for c in chains], config, updates, PAD, size, 0)


def test_the_words_that_are_gone_at_each_update() -> None:
    make = batches(EXACT, 8, [CHAIN], 1)
    seen = [text(make(update, 0, 1), 0) for update in range(8)]
    answer = [27, 28, 1]
    assert seen[0] == seen[1] == [4, 5, 24, 6, 7, 8, 9, 10, 11, 12, 13, 26, *answer]
    assert seen[2] == seen[3] == [4, 5, 24, 9, 10, 11, 12, 13, 26, *answer]
    assert seen[4] == seen[5] == [4, 5, 24, 12, 13, 26, *answer]
    assert seen[6] == seen[7] == [4, 5, *answer]
    batch = make(4, 0, 1)
    labels = [label for label in batch.tensors["labels_BK"][0].tolist() if label != IGNORED]
    assert labels == [24, 12, 13, 26, *answer]
    assert batch.counts == {"ce": 7}


def test_what_encloses_the_steps_goes_with_the_last_token() -> None:
    assert shortened(CHAIN, 7).completion == [24, 13, 26, 27, 28, 1]
    assert shortened(CHAIN, 8).completion == [27, 28, 1]
    bare = Chain("p", [4], [24], [], [26], [27, 1], 0)
    assert shortened(bare, 0).completion == [27, 1]


def test_stages_as_published() -> None:
    published = StepwiseConfig()
    assert published.stages == 6
    assert [removed(published, 100, stage, 0) for stage in range(7)] == [0, 8, 16, 24, 32, 100, 100]
    assert [removed(published, 10, stage, 3) for stage in range(6)] == [3, 10, 10, 10, 10, 10]
    assert StepwiseConfig(remove_all_from=40).stages == 6
    assert StepwiseConfig(remove_all_from=41).stages == 7
    one_by_one = StepwiseConfig(delta=1)
    assert [removed(one_by_one, 100, stage, 0) for stage in (0, 1, 38, 39)] == [0, 1, 38, 100]


def test_a_share_of_each_chain() -> None:
    config = StepwiseConfig(share=0.25)
    assert config.stages == 5
    assert [removed(config, 10, stage, 0) for stage in range(5)] == [0, 3, 5, 8, 10]
    assert [removed(config, 4, stage, 1) for stage in range(5)] == [1, 2, 3, 4, 4]
    assert StepwiseConfig(share=0.1).stages == 11
    assert [removed(StepwiseConfig(share=0.1), 30, stage, 0) for stage in range(11)] == list(range(0, 31, 3))
    assert StepwiseConfig(share=0.3).stages == 5  # 0, .3, .6, .9, all


def test_stages_begin_and_the_optimizer_with_them() -> None:
    assert starts(StepwiseConfig(), 60) == [0, 10, 20, 30, 40, 50]
    assert resets(StepwiseConfig(), 60) == {10, 20, 30, 40, 50}
    paced = StepwiseConfig(updates_per_stage=4)
    assert starts(paced, 60) == [0, 4, 8, 12, 16, 20]
    assert resets(paced, 60) == {4, 8, 12, 16, 20}
    with pytest.raises(ConfigError, match="the last words would go after 20 updates, the run has 20"):
        starts(paced, 20)


@pytest.mark.parametrize("rate", [1.0, 4.0])
def test_rows_run_ahead_with_the_probability_that_the_paper_names(rate: float) -> None:
    config, count = StepwiseConfig(smoothing=rate), 20_000
    drawn = [drawn_ahead(config, i // 100, i % 100, 11) for i in range(count)]
    for ahead in range(4):
        expected = (1 - math.exp(-rate)) * math.exp(-rate * ahead)
        error = math.sqrt(expected * (1 - expected) / count)
        assert drawn.count(ahead) / count == pytest.approx(expected, abs=4 * error)
    assert drawn == [drawn_ahead(config, i // 100, i % 100, 11) for i in range(count)]
    assert drawn != [drawn_ahead(config, i // 100, i % 100, 12) for i in range(count)]
    assert {drawn_ahead(EXACT, update, 0, 11) for update in range(50)} == {0}


def test_chance_is_each_rows_own_and_no_matter_of_parts() -> None:
    config = StepwiseConfig(delta=2, remove_all_from=9, smoothing=0.5)
    make = batches(config, 50)
    lost: dict[str, set[int]] = {}
    for update in range(9):
        whole, parts = make(update, 0, 1), [make(update, part, 3) for part in range(3)]
        assert sum((part.problems for part in parts), ()) == whole.problems
        assert sum(part.counts["ce"] for part in parts) == whole.counts["ce"]
        texts = [text(part, b) for part in parts for b in range(len(part.problems))]
        assert texts == [text(whole, b) for b in range(len(whole.problems))]
        for name, row in zip(whole.problems, texts, strict=True):
            lost.setdefault(name, set()).add(len(row))
    assert max(map(len, lost.values())) > 2  # at stage 0 alone: chance makes the same row lose more or less


def text(batch, row: int) -> list[int]:
    return [token for token in batch.tensors["input_ids_BT"][row].tolist() if token != PAD]


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_left_is_learned_as_any_lesson(kind: str) -> None:
    objective, lengths = SftObjective(MODELS[kind](40)), [len(c.prompt) for c in CHAINS]
    for stage, count in enumerate((0, 3, 6, 99)):
        batch = batches(EXACT, 4)(stage, 0, 1)
        left = []
        for chain in CHAINS:
            words = [t for step in chain.steps for t in step][count:]
            told = [*chain.opening, *words, *chain.closing] if words else []
            left.append(Example(chain.problem, chain.prompt, [*told, *chain.answer]))
        plain = lesson_batches(left, lengths, PAD, 8, 0)(stage, 0, 1)
        assert plain.problems == batch.problems
        assert plain.counts == batch.counts
        with torch.no_grad():
            assert torch.equal(objective(**plain.tensors)["ce"], objective(**batch.tensors)["ce"])
