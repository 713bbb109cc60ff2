"""Silent reading: the places are where they say, batches change nothing, and thoughts stand where they are consumed."""

import pytest
import torch
from torch import nn

from stillroom.activations import residual_stream
from stillroom.errors import DataError
from stillroom.lenses.silent import read_silent
from stillroom.lenses.twins import random_twin
from stillroom.students import Manner, Student
from stillroom.students.folders import Thoughts
from stillroom.students.tokens import add_tokens
from toys import problem, student, sums

PROBLEMS = [*sums(5), problem("long", ("3 + 1", 4), question="Ann has 3 eggs and gets 1 and 1 and 1.")]


def thinker(kind: str = "llama", count: int = 2) -> Student:
    plain = student(kind)
    add_tokens(plain.model, plain.tokenizer, ["<bot>", "<eot>"])
    torch.manual_seed(3)
    made = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16), nn.LayerNorm(16)).eval()
    return Student(plain.model, plain.tokenizer, Manner(thoughts=Thoughts(count=count)), made)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pauses", [0, 3])
def test_places_hold_what_a_question_alone_gives(kind: str, pauses: int) -> None:
    one = student(kind, pauses=pauses)
    silent = read_silent(one, PROBLEMS, 4)
    waits = [f"pause {i}" for i in range(1, pauses + 1)]
    assert silent.places == ("number 1", "number 2", "number 3", "question end", *waits, "answer")
    assert silent.stream_LPBD.shape == (3, len(silent.places), len(PROBLEMS), 16)
    for row, told in enumerate(PROBLEMS):
        prompt = one.prompt(told.question)
        ids = torch.tensor([[*prompt, *one.tokenizer("The answer is", add_special_tokens=False)["input_ids"]]])
        with torch.no_grad(), residual_stream(one.model) as stream:
            one.model(input_ids=ids)
        digits = [i for i, token in enumerate(prompt) if one.tokenizer.decode([token]).strip().isdigit()]
        end = len(prompt) - pauses - 1
        for place, at in zip(silent.places, [*digits[:3], *range(end, len(prompt)), -1], strict=True):
            mine = silent.stream_LPBD[:, silent.places.index(place), row]
            torch.testing.assert_close(mine, torch.stack([layer[0, at] for layer in stream]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_batches_change_nothing(kind: str) -> None:
    for one in (student(kind), thinker(kind)):
        alone, together = (read_silent(one, PROBLEMS, size).stream_LPBD for size in (1, 8))
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_thoughts_are_read_where_they_are_consumed() -> None:
    one = thinker()
    silent = read_silent(one, PROBLEMS, 8)
    assert silent.places[-4:] == ("question end", "thought 1", "thought 2", "answer")
    begin, _ = one.ends_of_thoughts()
    prompt = one.prompt(PROBLEMS[0].question)
    with torch.no_grad():
        hidden = one.model.base_model(input_ids=torch.tensor([[*prompt, *begin]]))[0][0, -1]
        thought = one.projection(hidden)
    torch.testing.assert_close(silent.stream_LPBD[0, -3, 0], thought, rtol=0, atol=1e-5)
    assert not torch.allclose(silent.stream_LPBD[0, -2, 0], thought, atol=1e-2)


def test_reading_ends_where_numbers_do() -> None:
    broken = student()
    with torch.no_grad():
        broken.model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        read_silent(broken, PROBLEMS, 4)


def test_an_untrained_twin_shares_the_shape_and_nothing_else() -> None:
    one = student()
    state = torch.get_rng_state()
    fresh = random_twin(one)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.allclose(fresh.model.lm_head.weight, one.model.lm_head.weight)
    assert read_silent(fresh, PROBLEMS, 4).stream_LPBD.shape == read_silent(one, PROBLEMS, 4).stream_LPBD.shape
