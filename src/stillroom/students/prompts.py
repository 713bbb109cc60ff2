"""How a question becomes a student's prompt, in the same tokens at training and at every later reading.

The style is saved with the student. A prompt and a completion are tokenised apart, so that what a student is asked is
by construction what stood before its lesson's completion.
"""

from collections.abc import Sequence
from typing import Literal

from transformers import PreTrainedTokenizerBase

from stillroom.errors import ConfigError

Style = Literal["plain", "chat", "alpaca", "llama3", "gemma"]
STYLES: dict[str, tuple[str, str | None]] = {
    "plain": ("{question}\n", None),
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n{question}\n\n### Response:\n",
        None,
    ),
    "llama3": (
        "<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "gemma": ("<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>"),
}
"""Around the question, and the token that ends the answer's turn where it is not the end of the text. `chat` is the
tokenizer's own template."""
MARK = "\u241e"
"""Stands for a text in a template, to find what follows it."""


def render(question: str, style: str, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
    """The prompt's text; an empty question (a lesson that is all completion) stays empty."""
    if not question:
        return ""
    if style != "chat":
        return STYLES[style][0].replace("{question}", question)
    assert tokenizer is not None, "the chat template is the tokenizer's"
    return _chat([{"role": "user", "content": question}], tokenizer, ask=True)


def _chat(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, ask: bool) -> str:
    if not tokenizer.chat_template:
        raise ConfigError(f"style chat: this tokenizer has no chat template; choose one of {', '.join(sorted(STYLES))}")
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))


def prompts_ids(questions: Sequence[str], style: Style, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """For each question the tokens after which the student answers, with a beginning-of-text token where one is wanted.

    A tokenizer that puts that token before a text of its own accord wants it; a template may have written it already.
    """
    _refuse_unknown_ends(style, tokenizer)
    texts = [render(question, style, tokenizer) for question in questions]
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    begin = [tokenizer.bos_token_id] if wants_begin(tokenizer) else []
    return [row if row[:1] == begin else begin + row for row in rows]


def wants_begin(tokenizer: PreTrainedTokenizerBase) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def completions_ids(completions: Sequence[str], style: Style, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The completions' tokens, each with the token that ends the student's turn."""
    rows = tokenizer(list(completions), add_special_tokens=False)["input_ids"] if completions else []
    end = stop_ids(style, tokenizer)[0]
    return [[*row, end] for row in rows]


def stop_ids(style: Style, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens at which an answer ends: the end of the turn first, the end of the text among them."""
    end = int(tokenizer.eos_token_id)
    turn = _turn_of_chat(tokenizer) if style == "chat" else STYLES[style][1]
    return tuple(dict.fromkeys([end if turn is None else _id(turn, tokenizer), end]))


def _turn_of_chat(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The special token that the template writes right after an answer."""
    turns = [{"role": "user", "content": MARK}, {"role": "assistant", "content": MARK}]
    rest = _chat(turns, tokenizer, ask=False).rpartition(MARK)[2].lstrip()
    found = [token for token in tokenizer.all_special_tokens if rest.startswith(token)]
    return max(found, key=len, default=None)


def _id(token: str, tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.convert_tokens_to_ids(token))  # type: ignore[arg-type]


def _refuse_unknown_ends(style: Style, tokenizer: PreTrainedTokenizerBase) -> None:
    """A turn that is ended by a word which is no token of the vocabulary would never end."""
    turn = None if style == "chat" else STYLES[style][1]
    if turn is not None and turn not in tokenizer.get_vocab():
        raise ConfigError(f"style {style}: {turn} is no token of this model's vocabulary; choose plain, alpaca or chat")
