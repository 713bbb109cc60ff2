"""Students: any causal language model in a Hugging Face folder, with what is needed to ask it the way it was taught.

A student's folder is an ordinary Hugging Face folder with `student.json` beside the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from stillroom.config import Config
from stillroom.devices import use
from stillroom.errors import DataError
from stillroom.files import read_lines, write_json
from stillroom.records import Lesson, Problem
from stillroom.store import Workplace
from stillroom.students.prompts import Style, render
from stillroom.students.scratch import PAUSE, ScratchConfig, bpe_tokenizer, scratch_model, word_tokenizer
from stillroom.students.sft import Example, SftObjective, encode, sft_batches
from stillroom.training import FitConfig, fit

VERSION = 2

disable_progress_bar()  # type: ignore[no-untyped-call]  # loading and saving take milliseconds here, and progress has its own room


class Manner(Config):
    """How a student is asked: kept in `student.json` beside its weights."""

    style: Style = "plain"
    pauses: int = Field(0, ge=0)
    """Contentless pause tokens between the question and the answer."""
    attention: Literal["eager", "sdpa"] = "eager"


@dataclass(frozen=True)
class Student:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    manner: Manner

    def prompt(self, question: str) -> list[int]:
        """The tokens after which the student answers."""
        text = render(question, self.manner.style)
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], *self.pauses()]

    def pauses(self) -> list[int]:
        return [int(self.tokenizer.convert_tokens_to_ids(PAUSE))] * self.manner.pauses  # type: ignore[arg-type]


def save(student: Student, folder: Path) -> None:
    student.model.save_pretrained(folder)
    student.tokenizer.save_pretrained(folder)
    write_json(folder / "student.json", student.manner.model_dump())


def load(folder: Path, device: str = "cpu") -> Student:
    """A student from its folder, in float32, ready to be asked. Raises `DataError` for a folder that is none."""
    try:
        manner = Manner.model_validate_json((folder / "student.json").read_bytes())
    except FileNotFoundError:
        raise DataError(f"{folder}: no student.json, so this is no student's folder") from None
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=manner.attention, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model.to(device)  # type: ignore[arg-type]
    model.eval()  # type: ignore[no-untyped-call]
    return Student(model, tokenizer, manner)


class BaseConfig(Config):
    """The base from which every student starts: built from scratch, taught language and single steps."""

    scratch: ScratchConfig = ScratchConfig()
    fit: FitConfig = FitConfig()


def make_base(config: BaseConfig, at: Workplace) -> None:
    """Stage `base`: tokenizer from all texts of the training split, a new model, and the base lessons learned."""
    device = use(at.device, config.fit.threads)
    lessons = read_lines(at.parents["lessons"] / "lessons.jsonl", Lesson)
    worked = read_lines(at.parents["worked"] / "lessons.jsonl", Lesson)
    texts = [render(lesson.prompt, "plain") + lesson.completion for lesson in [*lessons, *worked]]
    if config.scratch.tokenizer == "word":
        numbers = {int(word) for text in texts for word in text.replace(".", " ").split() if word.isdecimal()}
        tokenizer = word_tokenizer(texts, range(max(numbers, default=0) + 1))
    else:
        tokenizer = bpe_tokenizer(texts, config.scratch.vocabulary)
    model = scratch_model(config.scratch, tokenizer, config.fit.seed)
    model.to(device)  # type: ignore[arg-type]
    student = Student(model, tokenizer, Manner())
    _teach(student, lessons, None, config.fit, at)


class StudentConfig(Config):
    """A student differs from its base in what it is shown (its lessons) and in nothing else."""

    pauses: int = Field(0, ge=0)
    fit: FitConfig = FitConfig()


def make_student(config: StudentConfig, at: Workplace) -> None:
    """Stage `student`: the base, fine-tuned on one set of lessons."""
    device = use(at.device, config.fit.threads)
    base = load(at.parents["base"], str(device))
    lessons = read_lines(at.parents["lessons"] / "lessons.jsonl", Lesson)
    problems = {p.id: p for p in read_lines(at.parents["problems"] / "train.jsonl", Problem)}
    questions = [problems[lesson.problem].question for lesson in lessons]
    manner = base.manner.model_copy(update={"pauses": config.pauses})
    _teach(Student(base.model, base.tokenizer, manner), lessons, questions, config.fit, at)


def token_statistics(examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """Tokens of the lessons' prompts and of their completions, which carry the loss: mean, longest and total."""
    lengths = {
        "prompt": [len(example.prompt) for example in examples],
        "completion": [len(example.completion) for example in examples],
    }
    return {
        part: {"mean": sum(counts) / len(counts), "longest": max(counts), "total": sum(counts)}
        for part, counts in lengths.items()
    }


def _teach(
    student: Student, lessons: list[Lesson], questions: list[str] | None, fit_config: FitConfig, at: Workplace
) -> None:
    """Fit, then save. Batches are grouped by the length of `questions`, or by the lessons' own where that is None."""
    examples = encode(
        lessons,
        student.tokenizer,
        student.manner.style,
        student.pauses(),
        student.model.config.max_position_embeddings,
    )
    if questions is None:
        lengths = [len(example.prompt) + len(example.completion) for example in examples]
    else:
        lengths = [len(ids) for ids in student.tokenizer(questions, add_special_tokens=False)["input_ids"]]
    batches = sft_batches(examples, lengths, student.tokenizer.pad_token_id, fit_config.batch_size, fit_config.seed)
    fit(SftObjective(student.model), batches, fit_config, at)
    save(student, at.out)
    write_json(at.out / "tokens.json", token_statistics(examples))
