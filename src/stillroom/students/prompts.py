"""How a question becomes token ids, identically at training and at every later reading. The style is saved with the
student.

Prompt and completion are tokenised apart, so what a student is asked is by construction the beginning of what it was
taught. Nothing here depends on the day: templates that write today's date are given a fixed one.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from stillroom.errors import ConfigError, DataError, StillroomError
from stillroom.foreign import reason_of

Style = Literal["plain", "bare", "chat", "alpaca", "llama3", "gemma"]


class Format(NamedTuple):
    """A style that is written out: the text around the question, and the token that ends the answer's turn, if any."""

    prompt: str
    end: str | None = None


FORMATS: dict[str, Format] = {
    "plain": Format("{question}\n"),
    "bare": Format("{question}"),
    "alpaca": Format(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{question}\n\n### Response:"
    ),
    "llama3": Format(
        "<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "gemma": Format("<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>"),
}
"""For any tokenizer: a special token that its vocabulary does not hold is read as the text that it is.

Sources: `prompt_no_input` of tatsu-lab/stanford_alpaca; the prompt formats of the model cards of Llama 3 and Gemma.
"""
FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
"""Stands before a template that asks for the date; it is the one Llama 3.2's own template falls back to."""
_OTHERS = f"choose one of {', '.join(FORMATS)}"
HALF = re.compile("[\ud800-\udfff]")
ANSWER = "xyzzy"
"""Stands for an answer, to find what a template writes after one."""


def render(question: str, style: str) -> str:
    """The prompt's text in a style of `FORMATS`; an empty question (a lesson that is all completion) stays empty."""
    return FORMATS[style].prompt.replace("{question}", question) if question else ""


def prompt_ids(question: str, style: Style, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens after which the student answers, see `prompts_ids`."""
    return prompts_ids([question], style, tokenizer)[0]


def prompts_ids(questions: Sequence[str], style: Style, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """For each question the tokens after which the student answers.

    The beginning-of-text token stands first exactly once where the tokenizer wants it, whether the template writes it
    or not, and before an empty question too. `chat` is the tokenizer's own template, with its block of hidden thinking
    closed where it has that switch. Raises `ConfigError` where a tokenizer has no template, or one that drops text.
    """
    if style == "chat":
        texts = _asked_in_chat(questions, tokenizer)
    else:
        texts = [render(question, style) for question in questions]
    begin = _begin(tokenizer)
    return [row if row[:1] == begin else begin + row for row in _tokens(texts, tokenizer)]


def completion_ids(completion: str, style: Style, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The completion's tokens and the token that ends the turn, see `completions_ids`."""
    return completions_ids([completion], style, tokenizer)[0]


def completions_ids(completions: Sequence[str], style: Style, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """For each completion its tokens and then the first of `stop_ids`, all of which a student learns."""
    end = stop_ids(style, tokenizer)[0]
    return [[*row, end] for row in _tokens(completions, tokenizer)]


def stop_ids(style: Style, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens at which an answer ends: the end of the turn first, then the end of the text if that is another.

    A style whose end of turn the vocabulary does not hold ends at the end of the text. Raises `DataError` for a
    tokenizer without one.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise DataError("the tokenizer has no end-of-text token, so no student could stop: set its eos_token")
    turn = _end_of_chat(tokenizer) if style == "chat" else _token(FORMATS[style].end, tokenizer)
    return tuple(dict.fromkeys([eos if turn is None else turn, eos]))


def _tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    for text in texts:
        if not text.isascii() and (half := HALF.search(text)):
            raise DataError(
                f"{text[:40]!r}: holds half of a character ({half[0]!r}), which no tokenizer reads: remove it"
            )
    rows: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return rows


def _begin(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The beginning-of-text token where the tokenizer puts it before a text of its own accord, else nothing."""
    first: list[int] = tokenizer("a")["input_ids"][:1]
    return first if first == [tokenizer.bos_token_id] else []


def _asked_in_chat(questions: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    rendered = iter(_chat([[_turn("user", question)] for question in questions if question], tokenizer, prompt=True))
    texts = [next(rendered) if question else "" for question in questions]
    for question, text in zip(questions, texts, strict=True):
        if question.strip() not in text:  # a template for pictures reads no plain text, and says nothing
            raise ConfigError(f"style chat: this tokenizer's template leaves out {question[:80]!r}; {_OTHERS}")
    return texts


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _chat(
    conversations: list[list[dict[str, str]]], tokenizer: PreTrainedTokenizerBase, prompt: bool = False
) -> list[str]:
    """Each conversation in the tokenizer's template, up to where the student is to answer if `prompt`."""
    if not tokenizer.chat_template:
        raise ConfigError(f"style chat: this tokenizer has no chat template; {_OTHERS}")
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = FIXED_DATE + template
    if not conversations:
        return []
    try:
        texts: list[str] = tokenizer.apply_chat_template(  # type: ignore[assignment]
            conversations, chat_template=template, tokenize=False, add_generation_prompt=prompt, enable_thinking=False
        )
    except StillroomError:
        raise
    except Exception as error:  # a template is a program that somebody wrote: it may fail in any way
        raise ConfigError(
            f"style chat: this tokenizer's template fails ({reason_of(error)[:200]}); {_OTHERS}"
        ) from error
    return texts


def _end_of_chat(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the template writes right after an answer, if it is one of the tokenizer's added tokens."""
    (text,) = _chat([[_turn("user", "a"), _turn("assistant", ANSWER)]], tokenizer)
    _, found, after = text.rpartition(ANSWER)
    (ids,) = _tokens([after.lstrip() if found else ""], tokenizer)
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None


def _token(token: str | None, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of one token; none where the vocabulary does not hold it (a tokenizer may answer with that of `<unk>`)."""
    index = None if token is None else tokenizer.convert_tokens_to_ids(token)
    return index if isinstance(index, int) and tokenizer.convert_ids_to_tokens(index) == token else None
