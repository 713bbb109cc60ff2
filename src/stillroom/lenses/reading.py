"""What students hold while they read: the residual stream at named places, the same for every student of one task.

Two texts are read. The *silent* one is the question and `The answer is`, with the student's pauses or thoughts between
them and no reasoning in words; its places are single positions. The *spoken* one has the worked reasoning and the
answer too, is the same for all students, and every token of it belongs to one class.

Legend: L layers (0 is the embedding), P places, B problems, T tokens, D width, N rows of vectors.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stillroom.activations import passes, residual_stream
from stillroom.errors import DataError
from stillroom.records import Problem
from stillroom.students import Student
from stillroom.students.batches import right_padded
from stillroom.students.thinking import Thinking

ANSWER = "The answer is"
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
OPERATORS = frozenset("+-*/=×÷−")
CLASSES = ("question", "operands", "operators", "reasoning", "answer")


class Silent(NamedTuple):
    """The residual stream over the silent text: `stream_LPBD` in float32 on the CPU, a name for each place."""

    places: tuple[str, ...]
    stream_LPBD: Tensor


@torch.no_grad()  # not inference mode: a tuned lens is fitted on what is read
def read_silent(student: Student, problems: Sequence[Problem], batch_size: int) -> Silent:
    """What a student holds at each number of the question, its end, its pauses or thoughts, and before the answer.

    Numbers are those that every question has, counted from the first. Raises `DataError` where something that was read
    is not finite.
    """
    prompts = student.prompts([problem.question for problem in problems])
    numbers = [_numbers(student, prompt, problem) for prompt, problem in zip(prompts, problems, strict=True)]
    shared = min(map(len, numbers))
    pauses = max(student.manner.pauses - 1, 0)
    end_at = [len(prompt) - 1 for prompt in prompts]
    places_BP = [[*found[:shared], *range(end - pauses, end + 1)] for found, end in zip(numbers, end_at, strict=True)]
    names = [f"number {i + 1}" for i in range(shared)] + [f"pause {i + 1}" for i in range(pauses)] + ["question end"]
    thoughts = student.manner.thoughts.count if student.manner.thoughts else 0
    parts = []
    for start in range(0, len(prompts), batch_size):
        rows, at_BP = prompts[start : start + batch_size], places_BP[start : start + batch_size]
        part = _thinking(student, rows, at_BP) if student.manner.thoughts else _reading(student, rows, at_BP)
        parts.append(finite(part.float().cpu(), "the residual stream"))
    names += [*(f"thought {i + 1}" for i in range(thoughts)), "answer"]
    return Silent(tuple(names), torch.cat(parts, dim=2))


def _reading(student: Student, prompts: Sequence[list[int]], places_BP: Sequence[list[int]]) -> Tensor:
    """(L, P, B, D) of students without thoughts: one pass."""
    answer = tokens(student, ANSWER)
    texts = [[*prompt, *answer] for prompt in prompts]
    at_BP = [[*places, len(text) - 1] for places, text in zip(places_BP, texts, strict=True)]
    with residual_stream(student.model) as stream:
        student.model.base_model(input_ids=padded(student, texts), use_cache=False)
    return _at(stream, at_BP)


def _thinking(student: Student, prompts: Sequence[list[int]], places_BP: Sequence[list[int]]) -> Tensor:
    """(L, P, B, D) of students that think: the question's pass, a pass a thought, and the answer's."""
    begin, end = student.ends_of_thoughts()
    told = student.manner.thoughts
    assert told is not None, "asked of students that think in vectors"
    texts = [[*prompt, *begin] for prompt in prompts]
    lengths_B = torch.tensor([len(text) for text in texts], device=student.model.device)
    after = torch.tensor([*end, *tokens(student, ANSWER)], device=student.model.device).expand(len(texts), -1)
    with passes(student.model) as record:
        thinking = Thinking(student.model, padded(student, texts), lengths_B, torch.full_like(lengths_B, told.count))
        thinking.think(student.projection)
        thinking.answer(after, 1, False)
    question, *thoughts, last = record
    parts = [_at(question, places_BP), *(torch.stack(one)[:, None, :, 0] for one in thoughts)]
    if told.count:  # the last thought is read in one pass with what follows it
        parts.append(torch.stack(last)[:, None, :, 0])
    return torch.cat([*parts, torch.stack(last)[:, None, :, -1]], dim=1)


def _at(stream: Sequence[Tensor], places_BP: Sequence[list[int]]) -> Tensor:
    """(L, P, B, D): every row's own places."""
    places_PB = torch.tensor(places_BP, device=stream[0].device).T
    return torch.stack([layer[torch.arange(places_PB.shape[1], device=layer.device), places_PB] for layer in stream])


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
    return right_padded(rows, int(student.tokenizer.pad_token_id)).to(student.model.device)


def word(student: Student, *ids: int) -> str:
    """The text of tokens, without the space around it."""
    return _word(student.tokenizer, ids)


@cache
def _word(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...]) -> str:
    return str(tokenizer.decode(list(ids))).strip()


def tokens(student: Student, text: str) -> list[int]:
    return list(student.tokenizer(text, add_special_tokens=False)["input_ids"])


def _numbers(student: Student, prompt: Sequence[int], problem: Problem) -> list[int]:
    """The last token of each number of the question; a template's own numbers stand before the question."""
    ends = [i for i, run in _runs(student.tokenizer, prompt) if run]
    return ends[-len(NUMBER.findall(problem.question)) or len(ends) :]


def _runs(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> Iterator[tuple[int, bool]]:
    """For each position whether a number ends there: a digit that no further digit follows without a space."""
    texts = [_piece(tokenizer, token) for token in prompt]
    for i, text in enumerate(texts):
        following = texts[i + 1] if i + 1 < len(texts) else ""
        yield i, text[-1:].isdigit() and not following[:1].isdigit()


@cache
def _piece(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """A token's text with the space before it, where the tokenizer keeps one; a word of its own has one too."""
    raw = str(tokenizer.convert_ids_to_tokens(token))
    text = str(tokenizer.decode([token]))
    spaced = raw[:1] in ("Ġ", "▁") or text[:1].isspace() or tokenizer.decode([token, token]) == f"{text} {text}"
    return f" {text.strip()}" if spaced else text


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
        raise DataError(f"{what} holds NaN or infinity, so nothing can be read from it: the student has diverged")
    return values
