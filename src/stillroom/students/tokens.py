"""A tokenizer made ready for training, and a model's table made to hold it."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stillroom.errors import DataError

PAD = "<pad>"


def refuse_mismatch(tokenizer: PreTrainedTokenizerBase, rows: int, where: str) -> None:
    """Raise `DataError` for a tokenizer that is not the model's, or that cannot end a text."""
    if len(tokenizer) > rows:
        raise DataError(
            f"{where}: the tokenizer has {len(tokenizer)} tokens and the model holds {rows}: they do not belong "
            "together; bring the tokenizer's files from where the model comes from"
        )
    if tokenizer.eos_token_id is None:
        raise DataError(f"{where}: the tokenizer has no end-of-text token, so no student could learn to stop: name one")


def settle_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer a pad token that is not its end-of-text token: masking the one would mask the other.

    A special token that is made for it (its name holds `pad`) where the vocabulary has one, else a further token.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    made = [token for token in special if "pad" in token.lower() and token != tokenizer.eos_token]
    tokenizer.add_special_tokens({"pad_token": made[0] if made else PAD})


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> bool:
    """Whether any of these special tokens was not there before; now all are."""
    fresh = [AddedToken(token, special=True) for token in tokens if token not in tokenizer.get_vocab()]
    return tokenizer.add_tokens(fresh, special_tokens=True) > 0


@torch.no_grad()
def hold(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grow the model's table to the tokenizer; each further row is the mean of the rows that were there.

    The same rows come out wherever a model is opened, so what is not trained of them need not be kept.
    """
    before = int(model.config.get_text_config().vocab_size)
    if len(tokenizer) <= before:
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ends: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]  # type: ignore[no-untyped-call]
    for layer in ends:
        if layer is not None:
            layer.weight[before:] = layer.weight[:before].mean(0)
            if getattr(layer, "bias", None) is not None:
                layer.bias[before:] = 0
