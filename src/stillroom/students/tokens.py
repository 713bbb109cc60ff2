"""A tokenizer made ready to teach with: a pad token of its own, further special tokens, and a model that holds them."""

import re
from collections.abc import Sequence
from typing import get_args

import torch
from tokenizers import AddedToken
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stillroom.errors import DataError
from stillroom.students.prompts import FORMATS, Style, stop_ids

PAD = "<pad>"
MADE_FOR_PADDING = re.compile(r"[<\[]\|?(finetune_right_)?pad(ding)?(_id|_token)?\|?[>\]]", re.IGNORECASE)
"""Whole names only: `<|vision_pad|>`, `<|fim_pad|>` and their like have another meaning."""
RESERVED = re.compile(r"<\|?(reserved_special_token_|reserved_|unused_?)\d+\|?>")
RARE = "\U00013000 \U00012000 \U00016800"
"""Letters (hieroglyphs, cuneiform, old Bamum) that no vocabulary spells without bytes."""


def settle_padding(tokenizer: PreTrainedTokenizerBase, model_vocabulary: int) -> bool:
    """Give a tokenizer a pad token that ends nothing: where padding is masked, the end would be masked with it.

    One that is set stays, unless it is a token at which some style stops. Else it is, in this order, a special token
    made for padding, a reserved one, `<unk>` where this tokenizer writes every text without it, or a further token
    `<pad>`. Returns whether it lies beyond the `model_vocabulary` rows of the model's embedding, which must then grow
    (`add_tokens` with the pad token does it). Raises `DataError` for a tokenizer without an end-of-text token.
    """
    styles = [style for style in get_args(Style) if style in FORMATS or tokenizer.chat_template]
    ends = {end for style in styles for end in stop_ids(style, tokenizer)}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        taken = ends | {tokenizer.bos_token_id, tokenizer.unk_token_id}
        free = {index for index in tokenizer.added_tokens_decoder if index < model_vocabulary} - taken
        pad = _unused(tokenizer, free) or _unproduced_unknown(tokenizer)
        tokenizer.add_special_tokens({"pad_token": pad or PAD})
    return int(tokenizer.pad_token_id) >= model_vocabulary


def _unused(tokenizer: PreTrainedTokenizerBase, free: set[int]) -> str | None:
    names = [str(tokenizer.added_tokens_decoder[index]) for index in sorted(free)]
    fitting = [name for kind in (MADE_FOR_PADDING, RESERVED) for name in names if kind.fullmatch(name)]
    return fitting[0] if fitting else None


def _unproduced_unknown(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """`<unk>`, unless it also stands for unknown words: then padding could not be told from text."""
    unknown = tokenizer.unk_token_id
    stops = unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id)
    if unknown is None or stops or unknown in tokenizer(RARE, add_special_tokens=False)["input_ids"]:
        return None
    return str(tokenizer.unk_token)


@torch.no_grad()
def add_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[int]:
    """The ids of special tokens, which tokenizer and model hold afterwards; tied weights stay tied.

    A row that gets its meaning here, be it new or spare until then, is the mean of the rows in use, which shifts the
    model's other predictions least (Hewitt 2021, nlp.stanford.edu/~johnhew/vocab-expansion.html). The model must not
    be quantised or carry adapters yet.
    """
    rows = _rows(model)
    used = min(size_of(tokenizer), rows)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True)
    size = size_of(tokenizer)
    if size > rows:
        # Sampling the further rows from the old ones' covariance, as it does if let, warns and takes minutes.
        model.resize_token_embeddings(size, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):  # type: ignore[no-untyped-call]
        for weight in layer.parameters() if layer is not None else ():
            weight[used:size] = weight[:used].float().mean(0).to(weight.dtype)
    ids = tokenizer.get_vocab()
    return [ids[token] for token in tokens]


def hold(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grow a model that has just been opened to its tokenizer, with the rows that it was given when it was first."""
    if size_of(tokenizer) > _rows(model):
        add_tokens(model, tokenizer, [])


def check_matches(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raise `DataError` for a tokenizer that is not that of a model with so many rows, or that cannot end a text."""
    if (size := size_of(tokenizer)) > rows:
        raise DataError(
            f"the tokenizer has token {size - 1} and the model's embedding ends at {rows - 1}: they do not "
            "belong together; take both from one folder"
        )
    stop_ids("plain", tokenizer)


def size_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the largest id: `len(tokenizer)` counts tokens, and some vocabularies have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _rows(model: PreTrainedModel) -> int:
    return model.get_input_embeddings().get_parameter("weight").shape[0]
