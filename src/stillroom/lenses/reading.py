"""What students hold while they read the worked reasoning and the answer: the *spoken* text, which is the same for all
students of one task, and of which every token belongs to one class.

Legend: L layers (0 is the embedding), B problems, T tokens, D width.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stillroom.activations import residual_stream
from stillroom.errors import DataError
from stillroom.records import Problem
from stillroom.students import Student
from stillroom.students.batches import right_padded

ANSWER = "The answer is"
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
OPERATORS = frozenset("+-*/=×÷−")
CLASSES = ("question", "operands", "operators", "reasoning", "answer")


class Spoken(NamedTuple):
    """One problem's spoken text: its tokens, the class of each, and where the answer's value begins."""

    ids: list[int]
    classes: list[str]


def spoken(student: Student, problem: Problem) -> Spoken:
    """Question, worked steps and answer, in the form that `normal` is taught; without pauses, alike for all."""
    prompt = student.prompt(problem.question)[: -len(student.pauses()) or None]
    steps = "".join(f"Step {i}: {s.expression} = {s.value}\n" for i, s in enumerate(problem.steps, 1))
    reasoning = tokens(student, f"<reasoning>\n{steps}</reasoning>\n") if steps else []
    answer = tokens(student, f"{ANSWER} {problem.answer}.")
    texts = [word(student, token) for token in (*prompt, *reasoning)]
    classes = ["operands" if NUMBER.fullmatch(text) else "question" for text in texts[: len(prompt)]]
    before = ""
    for text in texts[len(prompt) :]:
        operand = NUMBER.fullmatch(text) and before not in ("=", "Step")
        classes.append("operands" if operand else "operators" if text in OPERATORS else "reasoning")
        before = text or before
    return Spoken([*prompt, *reasoning, *answer], classes + ["answer"] * len(answer))


def read_spoken(student: Student, texts: Sequence[Spoken], batch_size: int) -> Iterator[tuple[range, list[Tensor]]]:
    """The residual stream batch by batch: the rows of a batch, and L+1 tensors of shape (B, T, D)."""
    for start in range(0, len(texts), batch_size):
        rows = range(start, min(start + batch_size, len(texts)))
        with torch.inference_mode(), residual_stream(student.model) as stream:
            student.model.base_model(input_ids=padded(student, [texts[row].ids for row in rows]), use_cache=False)
        yield rows, [finite(layer.float(), "the residual stream") for layer in stream]


def padded(student: Student, rows: Sequence[Sequence[int]]) -> Tensor:
    """Token ids (B, T), padded on the right, where no token of theirs sees the padding."""
    return right_padded(rows, int(student.tokenizer.pad_token_id), 1).to(student.model.device)


def word(student: Student, *ids: int) -> str:
    """The text of tokens, without the space around it."""
    return _word(student.tokenizer, ids)


@cache
def _word(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> str:
    return str(tokenizer.decode(list(ids))).strip()


def tokens(student: Student, text: str) -> list[int]:
    return list(student.tokenizer(text, add_special_tokens=False)["input_ids"])


def number_token(student: Student, value: str) -> int | None:
    """The token by which a number is known: the first of ` 12` that holds a digit; None where there is none."""
    return _number_token(student.tokenizer, value)


@cache
def _number_token(tokenizer: PreTrainedTokenizerBase, value: str) -> int | None:
    ids = tokenizer(f" {value}", add_special_tokens=False)["input_ids"]
    return next((int(token) for token in ids if any(map(str.isdigit, tokenizer.decode([token])))), None)


def finite(values: Tensor, what: str) -> Tensor:
    """The values. Raises `DataError` where one is NaN or infinite."""
    if not torch.isfinite(values).all():
        raise DataError(
            f"{what} holds NaN or infinity, so nothing can be read from it: a model that is looked at has diverged, or "
            "its file is damaged"
        )
    return values
