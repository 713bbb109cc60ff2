"""Steering moves what the latent's direction stands for, and random directions of the same length do not."""

import copy

import pytest
import torch

from stillroom.crosscoder.causal import Abreast, random_direction, steering
from stillroom.crosscoder.data import Tokens
from stillroom.crosscoder.exam import Exam
from stillroom.crosscoder.measuring import Address, describe
from stillroom.crosscoder.model import Crosscoder
from stillroom.crosscoder.steering import Answered, SteeringConfig, answered, steered
from stillroom.records import Finding, Problem
from stillroom.students import Manner, Student
from toys import END, llama, problem, tokenizer

WORDS = tokenizer()
YES = WORDS.convert_tokens_to_ids(" 7")
GO_ON = WORDS.convert_tokens_to_ids(" eggs")
CONFIG = SteeringConfig(latents=1, strengths=(-1.0, 1.0), problems=6, new_tokens=5)


def asked() -> list[Problem]:
    return [problem(f"p{i}", (f"{i} + 1", i + 1), question=f"Ann has {i} eggs and gets 1.") for i in range(6)]


def wordy() -> tuple[Exam, Crosscoder]:
    """A subject that ends at once, and goes on for ever where dimension 0 is large, which latent 2 writes."""
    model = llama(len(WORDS), spread=0.02)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(3)))
        table[:, 0], table[:, 1] = 0, 3
        head = model.get_output_embeddings().weight
        head.normal_(std=0.1, generator=torch.Generator().manual_seed(4))
        head[:, :2] = 0
        head[END, 1] = 5.0
        head[GO_ON, 0] = 9.0
    crosscoder = Crosscoder(2, 16, 4, 1)
    with torch.no_grad():
        crosscoder.decoder_FW[2, 16] = 2.0  # in the subject alone
        crosscoder.encoder_FW[2, 16] = 1.0
        crosscoder.decoder_FW[:2] = 0.1
    student = Student(model, WORDS, Manner())
    return Exam(Abreast(crosscoder, [copy.deepcopy(model), model], 1), student, asked(), 5, []), crosscoder


def test_a_direction_makes_answers_longer_and_random_ones_of_its_length_do_not() -> None:
    exam, crosscoder = wordy()
    x_NMD = torch.zeros(3, 2, 16)
    x_NMD[1, 1, 0] = 4.0  # the latent's largest value, so that a strength of 1 writes 8
    told = Tokens(x_NMD, torch.zeros(3).long(), torch.arange(3), torch.arange(3))
    real = describe(crosscoder, told)
    wrote = steering(crosscoder, 2, real.fires).cpu()
    assert answered(exam, CONFIG, None).tokens_B.tolist() == [0.0] * 6
    findings = {f.metric: f for f in steered(Address("s", "r", 1), real, exam, "+", torch.tensor([2]), CONFIG)}
    assert len(findings) == 2 * 2 * 2
    assert all(isinstance(f, Finding) and f.n == 6 and f.position == "+" for f in findings.values())
    longer = findings["tokens with latent 2 at strength +1"]
    assert longer.value == 5  # the limit
    assert {null.name: null.value for null in longer.nulls}["not steered"] == 0
    beyond = findings["tokens with latent 2 at strength +1, beyond random directions"]
    assert beyond.low > 2
    control = longer.value - beyond.value  # what random directions give
    assert {null.name: null.value for null in beyond.nulls}["not steered"] == pytest.approx(-control)
    levels = [answered(exam, CONFIG, random_direction(wrote, seed), 1.0).tokens_B.mean() for seed in range(3)]
    one_and_others = float(levels[0] - (levels[1] + levels[2]) / 2)
    assert {null.name: null.value for null in beyond.nulls}["random directions"] == pytest.approx(one_and_others)
    assert findings["tokens with latent 2 at strength -1"].value == 0
    assert {"accuracy with latent 2 at strength +1", "accuracy with latent 2 at strength -1"} <= findings.keys()


def test_nothing_is_steered_where_no_latent_was_found() -> None:
    exam, crosscoder = wordy()
    told = Tokens(torch.zeros(3, 2, 16), torch.zeros(3).long(), torch.arange(3), torch.arange(3))
    assert not list(steered(Address("s", "r", 1), describe(crosscoder, told), exam, "+", torch.tensor([]), CONFIG))


def test_several_samples_are_drawn_and_the_same_again() -> None:
    exam, _ = wordy()
    direction_D = torch.zeros(16)
    direction_D[0] = 1.0
    several = CONFIG.model_copy(update={"samples": 3, "temperature": 1.5})
    first, second = (answered(exam, several, direction_D, 2.0).tokens_B for _ in range(2))
    assert torch.equal(first, second)
    assert len({float(value) % 1 for value in first}) > 1  # means of three
    assert first.mean() == pytest.approx(float(second.mean()))


def test_the_nulls_of_a_difference_are_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    exam, crosscoder = wordy()
    told = Tokens(torch.ones(3, 2, 16), torch.zeros(3).long(), torch.arange(3), torch.arange(3))
    shares = iter([0.6, 0.9, 0.4, 0.5, 0.6])  # not steered, steered, three random directions

    def asked_again(*_: object) -> Answered:
        return Answered(*[torch.full((6,), next(shares))] * 2)

    monkeypatch.setattr("stillroom.crosscoder.steering.answered", asked_again)
    config = CONFIG.model_copy(update={"strengths": (1.0,)})
    real = describe(crosscoder, told)
    findings = {f.metric: f for f in steered(Address("s", "r", 1), real, exam, "+", torch.tensor([2]), config)}
    beyond = findings["accuracy with latent 2 at strength +1, beyond random directions"]
    assert beyond.value == pytest.approx(0.4)
    assert [null.value for null in beyond.nulls] == pytest.approx([0.1, 0.4 - 0.55])
    level = findings["accuracy with latent 2 at strength +1"]
    assert [null.value for null in level.nulls] == pytest.approx([0.6, 0.5])
