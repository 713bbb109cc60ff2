"""Collecting traces: what a latent student thinks about problems, in every variant of `students.thoughts`.

Streamed and resumable: a part of the problems at a time, each on disk before the next begins.

Legend: N problems of a part, K thoughts, d width of the student.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from stillroom.config import Config
from stillroom.devices import use
from stillroom.errors import DataError, UsageError
from stillroom.evaluation import spaced
from stillroom.evaluation.thinking import strangers
from stillroom.files import read_json, read_lines, write_json
from stillroom.oracle import probes, tables
from stillroom.progress import meter
from stillroom.records import Problem, Thought, Trace, content_key
from stillroom.store import Workplace
from stillroom.students import Student, load
from stillroom.students.thoughts import Answer, answer_variants, statistics, trace_variants
from stillroom.tasks import TEST, TRAIN

VERSION = 3
ASKED, HELD = "asked.json", "held.json"


class TraceConfig(Config):
    """What is traced: so many problems of each split, and how they are disturbed."""

    train: int = Field(1500, ge=2)
    disturbed: int | None = Field(None, ge=0)
    """So many of the training problems are disturbed (all where it is not given). Of the others what is thought is kept
    and what is said with and without it, which a tenth of the time buys."""
    test: int = Field(500, ge=2)
    new_tokens: int = Field(24, ge=1)
    scale: float = Field(1.0, ge=0)
    """The noise, as a multiple of a thought's own norm."""
    part: int = Field(256, ge=2)
    """Problems that are traced together; a swap's partner and the mean thought are taken among them."""
    seed: int = 0
    threads: int = Field(2, ge=1)


def make_traces(config: TraceConfig, at: Workplace) -> None:
    """Stage `traces`: those of training problems and those of test problems, from a student that thinks in vectors;
    and in `held.json`, for each thought, the step whose value it holds.

    Raises `DataError` where a problem stands in both splits.
    """
    splits = {
        name: spaced(read_lines(at.parents["problems"] / f"{name}.jsonl", Problem), count)
        for name, count in ((TRAIN, config.train), (TEST, config.test))
    }
    refuse_shared(splits[TRAIN], splits[TEST])
    student = load(at.parents["student"], str(use(at.device, config.threads))).plain()
    left = {TRAIN: max(0, len(splits[TRAIN]) - config.disturbed) if config.disturbed is not None else 0, TEST: 0}
    for name, problems in splits.items():
        collect(student, problems, config, at.out, name, at.partial / name, left[name])
    write_json(at.out / HELD, probes.held(tables.read(at.out, TRAIN)))


def content(question: str) -> str:
    """The key of what is asked: letter case and blanks do not make another problem."""
    return content_key(" ".join(question.casefold().split()))


def refuse_shared(train: Sequence[Problem | Trace], test: Sequence[Problem | Trace]) -> None:
    """Raise `DataError` where a question, or on synthetic tasks its skeleton, stands in both splits."""
    for what, keys in (("question", lambda p: content(p.question)), ("skeleton", lambda p: p.skeleton)):
        known = {keys(problem) for problem in train} - {""}
        shared = [problem for problem in test if keys(problem) in known]
        if shared:
            named = ", ".join(repr(problem.question) for problem in shared[:3])
            raise DataError(
                f"{len(shared)} problems for testing share their {what} with a training problem ({named}): a reader "
                "would be asked what it was told; take them out of one of the splits"
            )


def fingerprint(student: Student) -> str:
    """16 hex digits of all weights that think: the same for the same student wherever its folder lies."""
    digest = hashlib.sha256()
    parts = {"model": student.model, "projection": student.projection}
    for part, module in parts.items():
        for name, tensor in sorted(module.state_dict().items()) if module is not None else ():
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(f"{part}.{name} {list(tensor.shape)} {tensor.dtype}".encode())
            digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def collect(
    student: Student,
    problems: Sequence[Problem],
    config: TraceConfig,
    folder: Path,
    name: str,
    parts: Path,
    left: int = 0,
) -> None:
    """Write `NAME.parquet` and `NAME.safetensors` below `folder`; parts that a killed run left in `parts` are kept.

    `left` problems, evenly spaced, are not disturbed; they stand behind the others. Raises as `fitting` does, and
    `UsageError` for parts of another run.
    """
    who = fingerprint(student)
    if len(problems) < 2:
        raise DataError(f"{name}: {len(problems)} problems: at least two are needed, so that thoughts can be swapped")
    whole = spaced(range(len(problems)), len(problems) - left)
    problems = [problems[row] for row in (*whole, *sorted({*range(len(problems))} - {*whole}))]
    prompts = fitting(student, problems, config.new_tokens)
    _settle(parts, {"student": who, "config": config.model_dump(), "problems": [p.key() for p in problems]})
    runs = [*_parts(0, len(whole), config.part), *_parts(len(whole), len(problems), config.part)]
    folder.mkdir(parents=True, exist_ok=True)
    with meter(f"traces {name}", len(problems), "problems") as bar:
        for number, rows in enumerate(runs):
            if not tables.whole_part(parts, number):
                chosen = [problems[row] for row in rows]
                disturbed = rows.start < len(whole)
                made, vectors = traced(student, who, chosen, [prompts[row] for row in rows], config, disturbed)
                tables.write_part(parts, number, made, vectors)
            bar.advance(len(rows))
    tables.join(parts, len(runs), folder, name)
    shutil.rmtree(parts)


def _parts(first: int, end: int, most: int) -> list[range]:
    """The rows from `first` to `end` in parts of like size, at most `most` (and two) each."""
    count = -(-(end - first) // max(2, most))
    return [range(first + n * (end - first) // count, first + (n + 1) * (end - first) // count) for n in range(count)]


def fitting(student: Student, problems: Sequence[Problem], new_tokens: int) -> list[list[int]]:
    """The problems as prompts. Raises `UsageError` for a student without thoughts, or a problem longer than its
    context."""
    told = student.manner.thoughts
    if told is None or told.count == 0:
        raise UsageError("this student reasons in words, so it has no thoughts to trace: name one taught by CODI")
    prompts = student.prompts([problem.question for problem in problems])
    room = student.context - new_tokens - told.count - 2
    for problem, prompt in zip(problems, prompts, strict=True):
        if len(prompt) > room:
            raise UsageError(
                f"problem {problem.id}: its question takes {len(prompt)} tokens, and beside {told.count} thoughts and "
                f"{new_tokens} new tokens the student's context holds {room}: leave it out"
            )
    return prompts


def _settle(parts: Path, asked: dict[str, object]) -> None:
    """Parts belong to one student, one config and one list of problems."""
    parts.mkdir(parents=True, exist_ok=True)
    key = content_key(asked)
    if (parts / ASKED).exists() and read_json(parts / ASKED) != key:
        raise UsageError(
            f"{parts}: it holds the beginning of other traces (of another student, other problems or settings): "
            "give the command that was stopped again, or remove this folder"
        )
    write_json(parts / ASKED, key)


def traced(
    student: Student,
    who: str,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    config: TraceConfig,
    disturbed: bool = True,
) -> tuple[list[Trace], dict[str, Tensor]]:
    """The traces of these problems, whose swaps and means are taken among them, and their vectors by name. Those that
    are not disturbed are told with all thoughts and with none."""
    thinker, told = student.thinker(), student.manner.thoughts
    assert told is not None
    partners = strangers(problems)
    variants = trace_variants(told.count, partners, config.scale, config.seed)
    if not disturbed:
        variants = {name: variants[name] for name in ("early 0", f"early {told.count}")}
    names = list(variants)
    whole = names.index(f"early {told.count}")
    answered = answer_variants(thinker, prompts, list(variants.values()), config.new_tokens, reference=whole)
    alone = [row[whole] for row in answered]
    vectors = {
        "thoughts_NKd": torch.stack([answer.thoughts_Kd for answer in alone]).cpu(),
        "hiddens_NKd": torch.stack([answer.hiddens_Kd for answer in alone]).cpu(),
    }
    thoughts = _thoughts(student, alone, told.count)
    texts = _texts(student, answered)
    rows = []
    for row, problem in enumerate(problems):
        outputs = dict(zip(names, texts[row], strict=True))
        likely = [answer.reference or 0.0 for answer in answered[row]]
        rows.append(
            Trace.model_construct(  # all of it is ours: checking it again would cost as much as making it
                problem=problem.id, student=who, question=problem.question, gold=problem.answer, kind=problem.kind,
                choices=problem.choices, steps=tuple(step.value for step in problem.steps), skeleton=problem.skeleton,
                partner=problems[partners[row]].id, thoughts=thoughts[row], answer=outputs[names[whole]],
                outputs=outputs, losses={name: likely[whole] - one for name, one in zip(names, likely, strict=True)},
            )
        )  # fmt: skip
    return rows, vectors


def _thoughts(student: Student, alone: Sequence[Answer], count: int) -> list[tuple[Thought, ...]]:
    """The statistics of all thoughts of a part, read in one pass of the head."""
    flat_Md = torch.cat([answer.hiddens_Kd for answer in alone])
    told = statistics(flat_Md, student.thinker().head)
    ids = sorted({token for one in told for token, _ in one.top})
    words = dict(zip(ids, student.tokenizer.batch_decode([[token] for token in ids]), strict=True))
    first = [replace(one, cosine_to_previous=None) if i % count == 0 else one for i, one in enumerate(told)]
    made = [
        Thought.model_construct(
            step=i % count, norm=one.norm, cosine_to_previous=one.cosine_to_previous, sparsity=one.sparsity,
            entropy=one.entropy, top=tuple((words[token], share) for token, share in one.top),
        )
        for i, one in enumerate(first)
    ]  # fmt: skip
    return [tuple(made[i : i + count]) for i in range(0, len(made), count)]


def _texts(student: Student, answered: Sequence[Sequence[Answer]]) -> list[list[str]]:
    """Answers in words; those that are alike, as most of a trace's are, are decoded once."""
    keys = [[tuple(answer.completion.ids) for answer in row] for row in answered]
    distinct = list(dict.fromkeys(key for row in keys for key in row))
    words = student.tokenizer.batch_decode([list(key) for key in distinct], skip_special_tokens=True)
    said = dict(zip(distinct, words, strict=True))
    return [[said[key] for key in row] for row in keys]
