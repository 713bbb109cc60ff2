"""Models and tokenizers from scratch: transformers' own classes, saved and loaded as ordinary Hugging Face folders."""

from collections.abc import Iterable
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stillroom.config import Config

PAD, EOS, UNK, PAUSE = "<pad>", "<eos>", "<unk>", "<pause>"
SPECIAL = (PAD, EOS, UNK, PAUSE)
WORD = r"\n|</?\w+>| ?\w+| ?[^\w\s]|\s"
"""A tag, a number, a word or a sign is one token together with the blank before it, so that tokens join to the text."""


class ScratchConfig(Config):
    """A small Llama. `width` must be a multiple of twice `heads` (rotary embeddings turn pairs of dimensions)."""

    tokenizer: Literal["word", "bpe"] = "word"
    vocabulary: int = Field(1024, ge=300)
    """The size of a byte-level BPE vocabulary; a word-level one holds every word of the data."""
    width: int = Field(96, ge=8)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(256, ge=8)
    spread: float = Field(0.05, gt=0)
    """Standard deviation of the initial weights: about half of 1 / sqrt(width)."""
    positions: int = Field(512, ge=16)
    """The longest text in tokens."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of twice the heads ({self.heads})")
        return self


def word_tokenizer(texts: Iterable[str], numbers: Iterable[int]) -> PreTrainedTokenizerFast:
    """One token a word of `texts` and one a number, each with its leading blank; `decode` gives the text back."""
    split = pre_tokenizers.Split(Regex(WORD), behavior="isolated")
    words = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)} | {f" {n}" for n in numbers}
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *sorted(words - set(SPECIAL))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    return _wrap(tokenizer)


def bpe_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on `texts`: any UTF-8 text goes in and comes back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer)


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=[PAUSE],
        clean_up_tokenization_spaces=False,
    )


def shape(config: ScratchConfig, vocabulary: int) -> LlamaConfig:
    """The model's config, but for the ids of its special tokens."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=config.width,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=config.positions,
        initializer_range=config.spread,
        tie_word_embeddings=True,
        bos_token_id=None,
    )


def scratch_model(config: ScratchConfig, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A randomly initialised Llama in float32, the same for the same seed."""
    torch.manual_seed(seed)
    settings = shape(config, len(tokenizer))
    settings.pad_token_id, settings.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    model = LlamaForCausalLM(settings)
    model.set_attn_implementation("eager")  # on a CPU twice as fast as SDPA at this size
    return model
