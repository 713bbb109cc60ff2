"""Padding and batching change no token, whatever the model's positions; the end token ends a row."""

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from stillroom.decoding import Completion, Sampling, decode, decode_all, plan
from stillroom.errors import DataError
from toys import END, MODELS, PAD, WORDS

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 3], [20, 21, 22, 23], [30], [4, 4]]


def greedy(model: torch.nn.Module, prompt: list[int], limit: int, end: int) -> Completion:
    """One row, no padding, no cache: the definition."""
    ids = list(prompt)
    for _ in range(limit):
        with torch.inference_mode():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == end:
            return Completion(ids[len(prompt) :], True)
        ids.append(token)
    return Completion(ids[len(prompt) :], False)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_any_batch_gives_what_each_row_gives_alone(kind: str, batch_size: int) -> None:
    """Pitfalls 6 and 11: left padding with masks and position ids derived from them."""
    model = MODELS[kind]()
    alone = [greedy(model, prompt, 8, END) for prompt in PROMPTS]
    assert len({tuple(c.ids) for c in alone}) > 3  # else any mixing of rows would pass
    found = {k: v for batch in decode_all(model, PROMPTS, 8, PAD, [END], batch_size) for k, v in batch.items()}
    assert [found[row] for row in range(len(PROMPTS))] == alone


@pytest.mark.parametrize("kind", MODELS)
def test_a_row_stops_at_the_end_token_and_only_there(kind: str) -> None:
    model = MODELS[kind]()
    free = [greedy(model, prompt, 8, -1).ids for prompt in PROMPTS]
    end = next(token for ids in free for token in ids[1:] if token != ids[0])
    found = decode(model, PROMPTS, 8, PAD, [end])
    assert found == [greedy(model, prompt, 8, end) for prompt in PROMPTS]
    assert {completion.stopped for completion in found} == {True, False}
    for completion, ids in zip(found, free, strict=True):
        assert end not in completion.ids
        assert completion.ids == ids[: len(completion.ids)]
        assert len(completion.ids) == 8 or completion.stopped


def test_the_pad_token_may_be_the_end_token() -> None:
    model = MODELS["llama"]()
    end = greedy(model, PROMPTS[0], 3, -1).ids[-1]
    assert decode(model, PROMPTS, 8, end, [end]) == [greedy(model, prompt, 8, end) for prompt in PROMPTS]


def test_an_end_token_in_the_prompt_ends_nothing() -> None:
    model = MODELS["llama"]()
    prompts = [[END, 5, 6], [7]]
    assert decode(model, prompts, 4, PAD, [END]) == [greedy(model, prompt, 4, END) for prompt in prompts]


def test_a_plan_covers_every_row_once_with_the_longest_first() -> None:
    lengths = [3, 9, 1, 9, 4, 4, 2]
    batches = plan(lengths, 3)
    assert batches == [[1, 3, 4], [5, 0, 6], [2]]
    assert plan([], 3) == []
    for size in range(1, 9):
        assert sorted(row for batch in plan(lengths, size) for row in batch) == list(range(7))


def test_only_whole_batches_are_passed_over() -> None:
    model = MODELS["llama"]()
    first, second, third = decode_all(model, PROMPTS, 4, PAD, [END], 3)
    skip = frozenset([*first, next(iter(second))])
    assert list(decode_all(model, PROMPTS, 4, PAD, [END], 3, skip)) == [second, third]
    assert list(decode_all(model, PROMPTS, 4, PAD, [END], 3, frozenset(range(7)))) == []


def test_the_toys_can_tell_positions_apart() -> None:
    ids = torch.tensor([[5, 6]])
    for kind, make in MODELS.items():
        model = make()
        later = model(input_ids=ids, position_ids=torch.tensor([[3, 4]])).logits
        assert torch.allclose(later, model(input_ids=ids).logits, atol=1e-4) == (kind == "llama")
        assert model.config.vocab_size == WORDS


@pytest.mark.parametrize("sampling", [None, Sampling(0.7, 0)], ids=["greedy", "drawn"])
@pytest.mark.parametrize("kind", ["llama", "left to transformers"])
def test_logits_that_are_no_numbers_are_no_answer(kind: str, sampling: Sampling | None) -> None:
    mamba = MambaConfig(vocab_size=WORDS, hidden_size=16, num_hidden_layers=1)
    model = MODELS[kind]() if kind in MODELS else MambaForCausalLM(mamba).eval()
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "norm" in name).fill_(float("nan"))
    with pytest.raises(DataError, match=r"its logits hold NaN or infinity: weights are damaged"):
        decode(model, PROMPTS, 4, PAD, [END], sampling)
