"""Lessons with their chain of thought in parts, for students that learn to think it in silence.

A chain in words reads: question, `<reasoning>`, its steps a line each, `</reasoning>`, the answer's sentence. Its parts
are tokenised apart and joined as tokens, so that any step can be left out, or thoughts put in its place, without a
change to the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from stillroom.records import Lesson
from stillroom.students.folders import Student
from stillroom.students.prompts import stop_ids

OPEN, CLOSE = "<reasoning>\n", "</reasoning>\n"


@dataclass(frozen=True)
class Chain:
    """One lesson in tokens. The whole chain in words is `[*prompt, *opening, *steps…, *closing, *answer]`."""

    problem: str
    prompt: list[int]
    opening: list[int]
    steps: list[list[int]]
    """Each with its line end."""
    closing: list[int]
    answer: list[int]
    """The sentence of the answer and the token that ends the text."""
    value_at: int
    """The place in `answer` of the value's first token; the token before it is the last that leads to the answer."""


def chains(lessons: Sequence[Lesson], student: Student) -> list[Chain]:
    """Lessons of the variant `latent` as tokens."""
    words, end = student.tokenizer, stop_ids(student.manner.style, student.tokenizer)[0]
    opening, closing = _tokens([OPEN, CLOSE], words)
    prompts = student.taught([lesson.prompt for lesson in lessons])
    steps = iter(_tokens([f"{line}\n" for lesson in lessons for line in lesson.rationale], words))
    answers = words([lesson.completion for lesson in lessons], add_special_tokens=False, return_offsets_mapping=True)
    return [
        Chain(
            lesson.problem,
            prompt,
            opening,
            [next(steps) for _ in lesson.rationale],
            closing,
            [*ids, end],
            next(i for i, (_, stop) in enumerate(spans) if stop > lesson.value_at),
        )
        for lesson, prompt, ids, spans in zip(
            lessons, prompts, answers["input_ids"], answers["offset_mapping"], strict=True
        )
    ]


def _tokens(texts: Sequence[str], words: PreTrainedTokenizerBase) -> list[list[int]]:
    rows: list[list[int]] = words(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return rows
