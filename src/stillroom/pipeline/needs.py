"""What a plan would do and need: what is reused, what will run, what is missing for it, and how much memory each
student takes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from stillroom import quantised
from stillroom.errors import DataError, StillroomError
from stillroom.files import read_json, read_lines
from stillroom.foreign import opening
from stillroom.records import Lesson
from stillroom.store import Stage, Store
from stillroom.students.adapters import AdapterConfig
from stillroom.students.folders import DTYPES, Origin, load_manner, open_tokenizer
from stillroom.students.memory import Estimate, estimate, shape_of, smallest_gpu
from stillroom.students.prompts import completions_ids, prompts_ids
from stillroom.students.scratch import ScratchConfig, shape
from stillroom.teachers.clients import KEYS, refuse_unready

WORDS = 1000
"""A word-level vocabulary that has not been counted yet; of a small model it is a small part either way."""
UNITS = {"GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1}
TOKENS = 512
"""Tokens of the longest lesson, before any was counted."""


def plan_lines(plan: Sequence[Stage], store: Store) -> Iterator[str]:
    """A line a stage, a line for whatever is missing, then a line a student; a base that cannot be opened is looked
    for once."""
    width = max(len(stage.name) for stage in plan) + 2
    ahead = []
    for stage in plan:
        made = store.find(stage)
        ahead += [] if made else [stage]
        yield f"{'reuse' if made else 'run':6}{stage.name:{width}}{stage.stage}/{stage.key}"
    for sentence in dict.fromkeys(_missing(ahead)):
        yield f"missing: {sentence}"
    taught = [stage for stage in plan if stage.stage == "student" and "fit" in stage.config]
    while taught:
        stage, *taught = taught
        names = [stage.name]
        try:
            needed = told(stage, store)
        except DataError as error:  # without the network a plan can still be told
            base = stage.parents["base"].key
            names += [other.name for other in taught if other.parents["base"].key == base]
            taught = [other for other in taught if other.parents["base"].key != base]
            needed = f"not known ({error})"
        yield f"memory of {', '.join(names)}: {needed}"


def _missing(ahead: Sequence[Stage]) -> Iterator[str]:
    """What this machine lacks of what these stages ask for: packages, and keys of teachers."""
    for stage in ahead:
        try:
            for teacher in _teachers(stage.config) if stage.stage == "rationales" else ():
                if teacher["name"] in KEYS:
                    refuse_unready(teacher["name"], teacher.get("base_url"))
                if teacher.get("four_bit"):
                    quantised.refuse_without()
            if (stage.config.get("adapter") or {}).get("name") == "qlora":
                quantised.refuse_without()
        except StillroomError as error:
            yield str(error)


def _teachers(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A teacher, and those that a mixture is made of."""
    yield config
    for part in config.get("of", ()):
        yield from _teachers(part)


def told(stage: Stage, store: Store) -> str:
    """One line: the memory that teaching this student takes, its parts, and the smallest usual GPU that has it."""
    base, fit = stage.parents["base"], stage.config["fit"]
    config = _config(base)
    counted, most = _longest(stage, store), int(getattr(config, "max_position_embeddings", TOKENS))
    longest = counted or min(TOKENS, most)
    guess = "" if counted else f" ({'at most' if most <= TOKENS else 'a guess'}: lengths are not known yet)"
    rows = fit["micro_batch"] or fit["batch_size"]
    held = "float32" if "scratch" in base.config else base.config["dtype"]
    eager = base.config.get("attention", "eager") == "eager"
    adapter = AdapterConfig.model_validate(stage.config["adapter"])
    thinks = stage.config["codi"] or stage.config["coconut"]  # whose cache recomputed layers would drop
    found = estimate(
        shape_of(config), adapter, DTYPES[held], rows, longest, stage.config["checkpointing"] and not thinks,
        "eager" if eager else "sdpa", stage.config["pauses"] > 0,
    )  # fmt: skip
    parts = f"{rows} rows of {longest} tokens{guess} in {held}, {adapter.name}"
    return f"{_parts(found)} for {parts}; smallest usual GPU {smallest_gpu(found)}"


def _parts(found: Estimate) -> str:
    names = ("weights", "gradients", "optimizer", "activations", "logits")
    parts = ", ".join(f"{name} {size_told(getattr(found, name))}" for name in names)
    return f"{size_told(found.total)} ({parts})"


def size_told(size: int) -> str:
    """Bytes in a unit of their own, so that no part of a large whole reads as none."""
    unit, one = next((unit, one) for unit, one in UNITS.items() if size >= one or one == 1)
    return f"{size / one:.3g} {unit}"


def _config(base: Stage) -> PretrainedConfig:
    if "scratch" in base.config:
        scratch = ScratchConfig.model_validate(base.config["scratch"])
        return shape(scratch, WORDS if scratch.tokenizer == "word" else scratch.vocabulary)
    source: str = base.config["source"]
    with opening(source, "the model"):
        found: PretrainedConfig = AutoConfig.from_pretrained(
            source,
            revision=base.config["revision"],
            trust_remote_code=base.config["trust_remote_code"],
            local_files_only=Path(source).is_dir(),
        )
    return found


def _longest(stage: Stage, store: Store) -> int | None:
    """The longest lesson in tokens, where this student has been trained before, or its lessons and base are made."""
    path = store.folder(stage.stage, stage.key) / "tokens.json"
    counted: dict[str, Any] = read_json(path) if path.exists() else {}
    if counted:
        return int(counted["prompt"]["longest"] + counted["completion"]["longest"])
    made, base = (store.find(stage.parents[role]) for role in ("lessons", "base"))
    if made is None or base is None:
        return None
    lessons, style = read_lines(made / "lessons.jsonl", Lesson), load_manner(base).style
    words = open_tokenizer(Origin(source=str(base)))
    prompts = prompts_ids([lesson.prompt for lesson in lessons], style, words)
    answers = completions_ids([lesson.completion for lesson in lessons], style, words)
    return max(map(len, prompts), default=0) + int(stage.config["pauses"]) + max(map(len, answers), default=0)
