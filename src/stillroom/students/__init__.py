"""Students: any causal language model, taught by one set of lessons and kept with what is needed to ask it that way."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedTokenizerFast

from stillroom.config import Config
from stillroom.devices import use
from stillroom.errors import UsageError
from stillroom.files import read_lines, write_json
from stillroom.records import Lesson, Problem
from stillroom.store import Workplace
from stillroom.students import adapters, codi
from stillroom.students.adapters import AdapterConfig, checkpoint_activations
from stillroom.students.batches import CE, Example, keeps_apart, lesson_batches
from stillroom.students.chains import Chain, chains
from stillroom.students.folders import BEGIN, END, Manner, Origin, Student, Thoughts, load, save
from stillroom.students.gkd import GkdConfig, GkdObjective, refuse_other_vocabulary, refuse_without_room
from stillroom.students.methods import Methods, course
from stillroom.students.prompts import render
from stillroom.students.scratch import PAUSE, ScratchConfig, bpe_tokenizer, scratch_model, word_tokenizer
from stillroom.students.sft import SftObjective, encode
from stillroom.students.tokens import add_tokens
from stillroom.training import Batch, Batches, FitConfig, fit

__all__ = [
    "BaseConfig", "Manner", "Origin", "Student", "StudentConfig", "load", "make_base", "make_student", "save",
    "token_statistics",
]  # fmt: skip
VERSION = 4


class BaseConfig(Config):
    """The base from which every student starts: built from scratch, taught language and single steps."""

    scratch: ScratchConfig = ScratchConfig()
    fit: FitConfig = FitConfig()


def make_base(config: BaseConfig, at: Workplace) -> None:
    """Stage `base`: tokenizer from all texts of the training split, a new model, and the base lessons learned."""
    device = use(at.device, config.fit.threads)
    tokenizer = _tokenizer(config.scratch, at)
    model = scratch_model(config.scratch, tokenizer, config.fit.seed)
    model.to(device)  # type: ignore[arg-type]
    _teach(Student(model, tokenizer, Manner()), SftObjective(model), config.fit, at, by_question=False)


def _tokenizer(config: ScratchConfig, at: Workplace) -> PreTrainedTokenizerFast:
    """Of all words, or bytes, of the lessons and the worked ones; and of every number up to the largest."""
    lessons = [one for role in ("lessons", "worked") for one in read_lines(at.parents[role] / "lessons.jsonl", Lesson)]
    texts = [render(lesson.prompt, "plain") + lesson.completion for lesson in lessons]
    if config.tokenizer == "bpe":
        return bpe_tokenizer(texts, config.vocabulary)
    numbers = {int(word) for text in texts for word in text.replace(".", " ").split() if word.isdecimal()}
    return word_tokenizer(texts, range(max(numbers, default=0) + 1))


class StudentConfig(Methods):
    """A student differs from its base in what it is shown and in what its loss asks of it."""

    pauses: int = Field(0, ge=0)
    prefix: str = ""
    """What stands before each question when the student is asked."""
    terms: dict[str, float] = {"ce": 1.0}
    """The weight of each task of its lessons."""
    gkd: GkdConfig | None = None
    """Learn from a teacher's distribution, not from the lessons' words alone."""
    adapter: AdapterConfig = AdapterConfig()
    checkpointing: bool = False
    fit: FitConfig = FitConfig()


def make_student(config: StudentConfig, at: Workplace) -> None:
    """Stage `student`: the base, fine-tuned on one set of lessons."""
    device = use(at.device, config.fit.threads)
    student = begin(config, at, str(device))
    if config.methods:
        _internalise(student, config, at)
    else:
        _teach(student, _objective(student, config, at, str(device)), config.fit, at, by_question=True)


def begin(config: StudentConfig, at: Workplace, device: str) -> Student:
    """The base as this student starts: asked in its manner, with its tokens and its adapter."""
    torch.manual_seed(config.fit.seed)  # adapters are drawn here, whatever was drawn before
    home = at.parents["base"]
    base = load(home, device, quantised=config.adapter.name == "qlora")
    if config.adapter.name == "full" and base.manner.dtype == "float16":
        raise UsageError(f"{at.name}: weights in float16 lose small updates: hold them in float32, or use an adapter")
    model, tokenizer = base.model, base.tokenizer
    pauses = config.fillers or config.pauses
    needed = [PAUSE] * bool(pauses) + [BEGIN, END] * bool(config.thoughts)
    fresh = [token for token in needed if token not in tokenizer.get_vocab()]
    if fresh:
        add_tokens(model, tokenizer, fresh)
    changes: dict[str, object] = {"pauses": pauses, "prefix": config.prefix, "origin": None}
    made = None
    if config.codi is not None:
        made = codi.projection(config.codi, int(model.config.get_text_config().hidden_size), config.fit.seed)
        made = made.to(device) if made is not None else None
    if config.thoughts:
        changes["thoughts"] = Thoughts(count=config.thoughts, projected=made is not None)
    if config.adapter.name != "full":
        origin = base.manner.origin or Origin(source=f"../../base/{home.name}")
        changes |= {"origin": origin, "quantised": config.adapter.name == "qlora"}
    if config.checkpointing:
        checkpoint_activations(model)
    adapted: Any = adapters.attach(model, config.adapter, bool(fresh))
    return Student(adapted, tokenizer, base.manner.model_copy(update=changes), made)


def _objective(student: Student, config: StudentConfig, at: Workplace, device: str) -> nn.Module:
    if config.gkd is None:
        return SftObjective(student.model, config.terms)
    if set(config.terms) != {CE}:
        raise UsageError(f"{at.name}: gkd knows one task, and these lessons have {', '.join(config.terms)}")
    if config.fit.packing:
        raise UsageError(f"{at.name}: gkd learns row by row, so its rows cannot be packed: set fit.packing=false")
    teacher = load(at.parents["teacher"], device)
    refuse_other_vocabulary(student.tokenizer, teacher.tokenizer)
    if at.shard and config.gkd.share:
        raise UsageError(
            f"{at.name}: settings.shard cannot be used while a student samples: set gkd.share=0, or shard=false"
        )
    return GkdObjective(student, teacher.model.requires_grad_(False), config.gkd)


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


def _encoded(student: Student, at: Workplace, by_question: bool) -> tuple[list[Example], list[int]]:
    """The lessons in tokens, and the lengths by which they are grouped. Their words are let go of before training."""
    lessons = read_lines(at.parents["lessons"] / "lessons.jsonl", Lesson)
    examples = encode(lessons, student)
    if not by_question:
        return examples, [example.length for example in examples]
    return examples, _question_lengths(student, lessons, at)


def _question_lengths(student: Student, lessons: Sequence[Lesson], at: Workplace) -> list[int]:
    questions = [lesson.prompt for lesson in lessons]
    if "problems" in at.parents:  # a lesson may put words of its own around the question
        problems = {p.id: p for p in read_lines(at.parents["problems"] / "train.jsonl", Problem)}
        questions = [problems[lesson.problem].question for lesson in lessons]
    return [len(ids) for ids in student.tokenizer(questions, add_special_tokens=False)["input_ids"]]


def _teach(student: Student, objective: nn.Module, fit_config: FitConfig, at: Workplace, by_question: bool) -> None:
    """Fit, then save. Batches are grouped by the length of the lessons' questions, or by the lessons' own."""
    examples, lengths = _encoded(student, at, by_question)
    terms = {example.term for example in examples}
    if isinstance(objective, SftObjective) and terms != set(objective.weights):
        asked = ", ".join(sorted(objective.weights))
        raise UsageError(f"{at.name}: the lessons' tasks are {', '.join(sorted(terms))}, and `terms` weighs {asked}")
    if isinstance(objective, GkdObjective):
        refuse_without_room(objective.config, examples, student.context)
    fit_config = fit_config.settled(len(examples))
    if fit_config.packing and not keeps_apart(student.model):
        raise UsageError(f"{at.name}: this model's attention mixes rows that are packed; set fit.packing=false")
    pad = int(student.tokenizer.pad_token_id)
    batches = lesson_batches(examples, lengths, pad, fit_config.batch_size, fit_config.seed, fit_config.packing)
    if isinstance(objective, GkdObjective):
        batches = _by_rows(batches)
    weights = fit(objective, batches, fit_config, at)
    if at.main:
        own = {name.removeprefix("model."): tensor for name, tensor in weights.items()} if at.shard else None
        save(student, at.out, own)
        write_json(at.out / "tokens.json", token_statistics(examples))


def _chained(student: Student, at: Workplace) -> tuple[list[Chain], list[int], dict[str, dict[str, float]]]:
    """The lessons with their chains in tokens, how many each one's question has, and the statistics of all."""
    lessons = read_lines(at.parents["lessons"] / "lessons.jsonl", Lesson)
    told = token_statistics(encode(lessons, student))  # which refuses what cannot be learned
    return chains(lessons, student), _question_lengths(student, lessons, at), told


def _internalise(student: Student, config: StudentConfig, at: Workplace) -> None:
    """Learn, by one of the methods, from lessons that have their chain beside them."""
    if at.shard:
        raise UsageError(f"{at.name}: {config.methods[0]} cannot have its weights shared out: set settings.shard=false")
    taught, lengths, told = _chained(student, at)
    fit_config = config.fit.settled(len(taught))
    plan = course(config, student, taught, lengths, fit_config)
    fit(plan.objective, plan.batches, fit_config, at, plan.resets)
    if isinstance(plan.objective, codi.CodiObjective):
        plan.objective.hold_ends()
    if at.main:
        save(student, at.out)
        write_json(at.out / "tokens.json", told)


def _by_rows(batches: Batches) -> Batches:
    """Counted by rows: how long a row is that the student samples is not known before."""

    def counted(update: int, part: int, parts: int) -> Batch:
        batch = batches(update, part, parts)
        return replace(batch, counts={"gkd": len(batch.problems)})

    return counted
