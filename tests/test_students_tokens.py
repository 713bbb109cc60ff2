"""A pad token that ends nothing, further special tokens that the model holds, and no tokenizer of another model."""

from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

from stillroom.errors import DataError
from stillroom.students.prompts import completions_ids, stop_ids
from stillroom.students.tokens import PAD, add_tokens, check_matches, settle_padding
from toy_tokenizers import QWEN2, SHAPES, gpt2_like, llama3_like, qwen_like, toy
from toys import MODELS, gpt2, llama
from toys import tokenizer as words


@pytest.mark.parametrize(
    ("shape", "pad", "grows"),
    [("gpt2", PAD, True), ("llama3", "<|finetune_right_pad_id|>", False), ("gemma", "<pad>", False)],
)
def test_a_tokenizer_gets_a_pad_token_that_ends_nothing(shape: str, pad: str, grows: bool) -> None:
    """Pitfall 16: pad = eos masks EOS. GPT-2 has nothing to spare, Llama 3 a reserved token, Gemma its own."""
    tokenizer = SHAPES[shape]()
    before = len(tokenizer)
    assert settle_padding(tokenizer, before) is grows
    assert tokenizer.pad_token == pad
    assert len(tokenizer) == before + grows
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (tokenizer.pad_token_id >= before) is grows
    assert settle_padding(tokenizer, len(tokenizer)) is False  # nothing is left to do
    assert (tokenizer.pad_token, len(tokenizer)) == (pad, before + grows)


def test_a_pad_token_of_its_own_stays() -> None:
    """Pitfall 16: in Qwen's chat models padding is the end of the text and answers end at the end of the turn."""
    tokenizer = qwen_like()
    assert settle_padding(tokenizer, len(tokenizer)) is False
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize("end", ["<|endoftext|>", "<|im_end|>"])
def test_a_pad_token_at_which_some_style_stops_is_replaced(end: str) -> None:
    """Pitfall 16: pad = eos in Qwen's base models; and pad = the end of the turn, which masks that end."""
    tokenizer = qwen_like(eos="<|endoftext|>")
    tokenizer.pad_token = end
    assert settle_padding(tokenizer, 300) is False  # the model has rows to spare
    assert tokenizer.pad_token == PAD  # and not <|vision_pad|>
    assert tokenizer.pad_token_id == 260


def test_no_completion_holds_the_pad_token() -> None:
    """Pitfall 16: what is masked as padding must not be among what is learned."""
    for shape in SHAPES.values():
        tokenizer = shape()
        settle_padding(tokenizer, len(tokenizer))
        (ids,) = completions_ids(["The answer is 9."], "plain", tokenizer)
        assert tokenizer.pad_token_id not in ids
        assert ids[-1] == tokenizer.eos_token_id
        assert not {tokenizer.pad_token_id} & {*stop_ids("llama3", tokenizer), *stop_ids("gemma", tokenizer)}


@pytest.mark.parametrize(
    ("specials", "rows", "pad"),
    [
        (["<eos>", "<|reserved_special_token_0|>", "[PAD]"], 259, "[PAD]"),
        (["<eos>", "<|reserved_special_token_0|>", "[PAD]"], 258, "<|reserved_special_token_0|>"),  # beyond the model
        (["<eos>", "<unused0>"], 258, "<unused0>"),
        (["<eos>", "<|fim_pad|>", "<|image_pad|>"], 259, PAD),
        (["<eos>", "<|padding|>"], 258, "<|padding|>"),
    ],
)
def test_spare_tokens_are_taken_by_their_whole_names(specials: list[str], rows: int, pad: str) -> None:
    """Pitfall 16: a token that means something else is no padding."""
    tokenizer = toy(specials, eos_token="<eos>")
    settle_padding(tokenizer, rows)
    assert tokenizer.pad_token == pad


def spelling_bytes(fallback: bool) -> PreTrainedTokenizerFast:
    """In the shape of Llama 2: `<unk>` stands beside bytes that spell every text, or else for what is unknown."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"abc"]
    inner = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=fallback)
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.add_special_tokens([AddedToken(name, special=True) for name in pieces[:3]])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def test_the_unknown_word_is_padding_only_where_no_text_yields_it() -> None:
    """Pitfall 16 again: where an unknown word is a token of the text, padding must be another."""
    tokenizer = spelling_bytes(fallback=True)
    assert settle_padding(tokenizer, len(tokenizer)) is False
    assert tokenizer.pad_token == "<unk>"
    tokenizer = spelling_bytes(fallback=False)
    assert settle_padding(tokenizer, len(tokenizer)) is True
    assert tokenizer.pad_token == PAD


def test_the_pad_token_is_kept_with_the_tokenizer(tmp_path: Path) -> None:
    """Pitfall 16: pad = eos would be back at the next reading."""
    for shape in (gpt2_like, llama3_like):
        tokenizer = shape()
        settle_padding(tokenizer, len(tokenizer))
        tokenizer.save_pretrained(tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        assert (again.pad_token, again.pad_token_id) == (tokenizer.pad_token, tokenizer.pad_token_id)
        assert again.pad_token_id != again.eos_token_id
        assert len(again) == len(tokenizer)


@pytest.mark.parametrize("kind", MODELS)
def test_added_tokens_are_held_by_the_model(kind: str) -> None:
    """Pitfall 18: a tokenizer that outgrows its model. GPT-2's weights are tied, the Llama's are not."""
    tokenizer = words()
    size = len(tokenizer)
    model = MODELS[kind](size)
    if kind == "llama":
        model.lm_head.bias = torch.nn.Parameter(torch.randn(size))
    rows = model.get_input_embeddings().weight.detach().clone()
    head = model.get_output_embeddings().weight.detach().clone()
    ids = torch.tensor([[5, 6, 7]])
    logits = model(ids).logits.detach()
    assert add_tokens(model, tokenizer, ["<first>", "<second>"]) == [size, size + 1]
    check_matches(tokenizer, model.config.vocab_size)
    assert model.config.vocab_size == len(tokenizer) == size + 2
    together = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert together is model.config.tie_word_embeddings is (kind == "gpt2")
    torch.testing.assert_close(model.get_input_embeddings().weight[size:], rows.mean(0).expand(2, -1))
    torch.testing.assert_close(model.get_output_embeddings().weight[size:], head.mean(0).expand(2, -1))
    assert torch.equal(model.get_input_embeddings().weight[:size], rows)
    torch.testing.assert_close(model(ids).logits[..., :size], logits)
    torch.testing.assert_close(model(ids).logits[..., size], logits.mean(-1))  # the mean row has the mean logit
    assert tokenizer.decode(tokenizer("Ann<second> has")["input_ids"], skip_special_tokens=True) == "Ann has"


def test_a_grown_model_is_saved_and_opened_again(tmp_path: Path) -> None:
    """Pitfall 18: a configuration that still tells the old size."""
    tokenizer, model = gpt2_like(), gpt2(257)
    assert settle_padding(tokenizer, 257)
    assert add_tokens(model, tokenizer, [PAD]) == [257]
    model.save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert again.config.vocab_size == 258
    assert torch.equal(again.transformer.wte.weight, model.transformer.wte.weight)
    assert again.lm_head.weight is again.transformer.wte.weight
    check_matches(tokenizer, again.config.vocab_size)


def test_tokens_that_are_there_already_are_left_as_they_are() -> None:
    tokenizer = words()
    model = llama(len(tokenizer))
    rows = model.get_input_embeddings().weight.detach().clone()
    assert add_tokens(model, tokenizer, ["<pause>", "<eos>"]) == [3, 1]
    assert add_tokens(model, tokenizer, []) == []
    assert torch.equal(model.get_input_embeddings().weight, rows)


def test_spare_rows_are_used_before_a_model_grows() -> None:
    """Pitfall 18: Qwen's embedding has more rows than its tokenizer; a row that nothing trained is no start."""
    tokenizer = words()
    size = len(tokenizer)
    model = llama(size + 8)
    rows = model.get_input_embeddings().weight.detach().clone()
    assert add_tokens(model, tokenizer, ["<thought>"]) == [size]
    weight = model.get_input_embeddings().weight
    assert model.config.vocab_size == weight.shape[0] == size + 8
    torch.testing.assert_close(weight[size], rows[:size].mean(0))
    assert torch.equal(weight[size + 1 :], rows[size + 1 :])


def test_a_grown_model_is_the_same_whatever_was_drawn_before() -> None:
    """Law 1: the same bytes, whatever the state of the random numbers."""
    grown = []
    for seed in (1, 2):
        tokenizer, model = words(), gpt2(len(words()))
        torch.manual_seed(seed)
        add_tokens(model, tokenizer, ["<thought>"])
        grown.append(model.get_input_embeddings().weight.detach())
    assert torch.equal(*grown)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    """Pitfall 18: ids that the model's embedding does not hold."""
    tokenizer = words()
    check_matches(tokenizer, len(tokenizer))
    check_matches(tokenizer, len(tokenizer) + 100)
    last = len(tokenizer) - 1
    with pytest.raises(DataError, match=rf"has token {last} and the model's embedding ends at {last - 1}: they do not"):
        check_matches(tokenizer, last)


def test_gaps_in_a_vocabulary_count() -> None:
    """Pitfall 18: the number of tokens is not the largest id."""
    inner = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "a": 9}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>")
    with pytest.raises(DataError, match="has token 9 and the model's embedding ends at 8"):
        check_matches(tokenizer, 9)
    check_matches(tokenizer, 10)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    """Pitfall 16: a student that cannot be shown an end never stops."""
    for tokenizer in (toy([]), toy([], QWEN2)):
        with pytest.raises(DataError, match="no end-of-text token"):
            check_matches(tokenizer, 256)
        with pytest.raises(DataError, match="no end-of-text token"):
            settle_padding(tokenizer, 256)
