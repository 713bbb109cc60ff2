"""From scratch: text goes in and comes back, numbers are one token, and a seed is a model."""

import pytest
import torch

from stillroom.students.scratch import (
    EOS,
    PAD,
    PAUSE,
    SPECIAL,
    UNK,
    ScratchConfig,
    bpe_tokenizer,
    scratch_model,
    word_tokenizer,
)

TEXTS = [
    "Ann has 5 apples.  Ben's 2 times as many!\n<reasoning>\nStep 1: 5 * 2 = 10\n</reasoning>\nThe answer is 10.",
    "tab\there, \r\n and $ 3.50 (three)",
]


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_words_come_back_as_they_went_in(text: str) -> None:
    tokenizer = word_tokenizer(TEXTS, range(31))
    found = ids(tokenizer, text)
    assert tokenizer.unk_token_id not in found
    assert tokenizer.decode(found, skip_special_tokens=True) == text


def test_numbers_are_one_token_each_and_known_unseen() -> None:
    tokenizer = word_tokenizer(["The answer is 1."], range(1001))
    assert [len(ids(tokenizer, f" {n}")) for n in range(1001)] == [1] * 1001
    assert len({ids(tokenizer, f" {n}")[0] for n in range(1001)}) == 1001
    assert tokenizer.tokenize("The answer is 777.") == ["The", " answer", " is", " 777", "."]
    assert ids(tokenizer, "The answer is zebra.")[3] == tokenizer.unk_token_id


def test_tags_and_line_ends_are_tokens() -> None:
    tokenizer = word_tokenizer(TEXTS, range(31))
    assert tokenizer.tokenize("<reasoning>\nStep 1: 5 * 2 = 10\n</reasoning>\n") == [
        "<reasoning>", "\n", "Step", " 1", ":", " 5", " *", " 2", " =", " 10", "\n", "</reasoning>", "\n",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [*TEXTS, "naïve Ω 漢字 🙂\u200d👩 \u2028\x00\x7f  ", "", " ", "unseen wörds\n\n\n"])
def test_bytes_come_back_whatever_the_text(text: str) -> None:
    tokenizer = bpe_tokenizer(TEXTS, 300)
    found = ids(tokenizer, text)
    assert tokenizer.unk_token_id not in found
    assert tokenizer.decode(found, skip_special_tokens=True) == text


def test_bpe_learns_its_data_and_keeps_to_its_size() -> None:
    small, large = bpe_tokenizer(TEXTS * 5, 262), bpe_tokenizer(TEXTS * 5, 320)
    assert len(small) == 262
    assert len(large) == 320
    assert len(ids(large, TEXTS[0])) < len(ids(small, TEXTS[0]))


@pytest.mark.parametrize("make", [lambda: word_tokenizer(TEXTS, range(31)), lambda: bpe_tokenizer(TEXTS, 300)])
def test_special_tokens_are_the_first_and_distinct(make) -> None:
    tokenizer = make()
    assert [tokenizer.convert_tokens_to_ids(name) for name in SPECIAL] == [0, 1, 2, 3]
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token) == (PAD, EOS, UNK)
    assert ids(tokenizer, PAUSE * 2) == [3, 3]
    assert make().get_vocab() == tokenizer.get_vocab()


def test_the_same_seed_is_the_same_model() -> None:
    tokenizer = word_tokenizer(TEXTS, range(31))
    config = ScratchConfig(width=16, layers=2, heads=2, feed_forward=32, positions=64)
    one, two, other = (scratch_model(config, tokenizer, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    model = scratch_model(config, tokenizer, 3)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.num_parameters() == len(tokenizer) * 16 + 2 * (4 * 16 * 16 + 3 * 16 * 32 + 2 * 16) + 16
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(config.spread, rel=0.1)
