"""Teachers: who writes the rationales. A teacher is a config and a function from problems to rationales.

To add one, write both and add a line to `TEACHERS`. A teacher may leave a problem out; the curriculum then leaves it
out of every arm.
"""

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from stillroom.config import Config
from stillroom.errors import ConfigError, DataError, unknown
from stillroom.files import read_lines, write_lines
from stillroom.records import Problem, Rationale
from stillroom.store import Workplace
from stillroom.tasks.benchmarks.rows import rows
from stillroom.teachers.asking import AnthropicConfig, Desk, LocalConfig, OpenAIConfig, asked, model_files
from stillroom.teachers.limits import Limits
from stillroom.teachers.prompts import OTHER_NAMES

VERSION = 2
NO_DESK = Desk()
"""For teachers that ask nobody."""
CONCLUSION = re.compile(r"\s*(so,? |therefore,? |thus,? )?the answer is:?(?:(?!the answer is)[^\n])*$", re.IGNORECASE)


class WorkedConfig(Config):
    """The task's own steps, one line each: `Step 1: 5 + 7 = 12`."""

    name: Literal["worked"] = "worked"


def worked(config: WorkedConfig, problems: Sequence[Problem], data: Path, desk: Desk = NO_DESK) -> list[Rationale]:
    if any(not problem.steps for problem in problems):
        bare = next(problem.id for problem in problems if not problem.steps)
        raise DataError(
            f"problem {bare!r} has no steps, so the teacher `worked` has nothing to write; use another teacher"
        )
    return [
        Rationale(
            problem=problem.id,
            teacher=config.name,
            granularity=None,
            format="plain",
            text="\n".join(f"Step {i}: {s.expression} = {s.value}" for i, s in enumerate(problem.steps, 1)),
        )
        for problem in problems
    ]


def concluded(text: str) -> tuple[str, str]:
    """A teacher's text without its last `The answer is X`, and that sentence."""
    whole = text.strip()
    reasons = CONCLUSION.sub("", whole).strip()
    return reasons, whole.removeprefix(reasons).strip()


class HumanConfig(Config):
    """The benchmark's own worked solutions; a problem without one is left out."""

    name: Literal["human"] = "human"


def one_name(form: str) -> str:
    """A format's own name, also where it goes by the name of the granularity study's files (`bsm`, `rar`, `sym`)."""
    return OTHER_NAMES.get(form, form)


def human(config: HumanConfig, problems: Sequence[Problem], data: Path, desk: Desk = NO_DESK) -> list[Rationale]:
    found = [
        Rationale(problem=p.id, teacher=config.name, granularity=None, format="human", text=p.solution)
        for p in problems
        if p.solution
    ]
    if not found:
        raise DataError("no training problem has a solution of its own, so the teacher `human` has nothing to write")
    return found


class RecordedConfig(Config):
    """Rationales that a teacher wrote before, from JSON lines with `id, teacher, granularity, format, cot`."""

    name: Literal["recorded"] = "recorded"
    file: str = "teacher_cot.jsonl"
    dataset: str
    teacher: str = "gemini"
    granularity: int | None = Field(1, ge=1, le=6)
    format: str = "plain"
    matched: bool = False
    """Only problems about which every cell of the dataset in the file has a rationale, so that experiments on different
    cells teach the same problems."""


def recorded(config: RecordedConfig, problems: Sequence[Problem], data: Path, desk: Desk = NO_DESK) -> list[Rationale]:
    fields = ("dataset", "id", "teacher", "granularity", "format", "cot")
    wanted = {problem.id for problem in problems}
    cell = (config.teacher, config.granularity, one_name(config.format))
    met: dict[Any, set[str]] = defaultdict(set)
    found: dict[str, dict[int, Rationale]] = defaultdict(dict)
    for number, row in rows(data / config.file, fields, None):
        names = (row["dataset"], row["id"], row["teacher"], row["format"])
        level, sample = row["granularity"], row.get("sample", 0)
        if (
            not all(isinstance(n, str) for n in names)
            or not isinstance(level, int | None)
            or not isinstance(sample, int)
        ):
            raise DataError(f"{data / config.file}:{number}: names are texts, granularity and sample whole numbers")
        if row["dataset"] != config.dataset or row["id"] not in wanted:
            continue
        this = (row["teacher"], row["granularity"], one_name(row["format"]))
        met[this].add(row["id"])
        if this == cell:
            if not isinstance(row["cot"], str) or sample in found[row["id"]]:
                raise DataError(f"{data / config.file}:{number}: {row['id']}: `cot` is no text, or stands twice")
            found[row["id"]][sample] = _rationale(config, row)
    if not found:
        raise DataError(
            f"{data / config.file}: holds no rationale of {(config.dataset, *cell)} for the training problems"
        )
    shared = set.intersection(*met.values()) if config.matched else wanted
    return [found[p.id][sample] for p in problems if p.id in shared for sample in sorted(found.get(p.id, ()))]


def _rationale(config: RecordedConfig, row: dict[str, Any]) -> Rationale:
    text, conclusion = concluded(row["cot"])
    return Rationale(
        problem=row["id"], teacher=config.teacher, granularity=config.granularity, format=config.format, text=text,
        conclusion=conclusion, sample=row.get("sample", 0), truncated=row.get("finish") == "length",
    )  # fmt: skip


class MixtureConfig(Config):
    """Several teachers, of whom each teaches an even share of the problems, drawn by the problem's name."""

    name: Literal["mixture"] = "mixture"
    of: tuple[dict[str, Any], ...] = Field(min_length=2)
    """Each as under `teacher`."""


def parts(config: MixtureConfig) -> list[tuple["Teacher", Config]]:
    """The teachers of a mixture with their configs. Raises `ConfigError`."""
    found = []
    for at, entry in enumerate(config.of):
        name = str(entry.get("name"))
        if name not in TEACHERS or name == "mixture":
            raise ConfigError(f"teacher.of.{at}.name: {unknown('teacher', name, set(TEACHERS) - {'mixture'})}")
        found.append((TEACHERS[name], TEACHERS[name].config.parse(entry, f"teacher.of.{at}")))
    return found


def mixture(config: MixtureConfig, problems: Sequence[Problem], data: Path, desk: Desk = NO_DESK) -> list[Rationale]:
    teachers = parts(config)
    share = {p.id: int(hashlib.sha256(p.id.encode()).hexdigest(), 16) % len(teachers) for p in problems}
    written: dict[str, list[Rationale]] = defaultdict(list)
    for at, (teacher, settings) in enumerate(teachers):
        for rationale in teacher.write(settings, [p for p in problems if share[p.id] == at], data, desk):
            written[rationale.problem].append(rationale)
    return [rationale for problem in problems for rationale in written[problem.id]]


def mixed_files(config: MixtureConfig) -> tuple[str, ...]:
    return tuple(dict.fromkeys(file for teacher, settings in parts(config) for file in teacher.files(settings)))


def mixed_stamps(config: MixtureConfig) -> dict[str, Any]:
    return {key: value for teacher, settings in parts(config) for key, value in teacher.stamp(settings).items()}


def ask(config: Any, problems: Sequence[Problem], data: Path, desk: Desk = NO_DESK) -> list[Rationale]:
    """What a model answers."""
    return list(asked(config, problems, concluded, desk))


def prompts_used(config: Any) -> dict[str, Any]:
    """The prompts' checksum: when they change, the stage is made again, from the journal where it can."""
    return {"prompts": _prompts_checksum()}


@functools.cache
def _prompts_checksum() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(str(resources.files("stillroom.teachers.prompts"))).rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Teacher(NamedTuple):
    config: type[Config]
    write: Callable[[Any, Sequence[Problem], Path, Desk], list[Rationale]]
    files: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """The files of the data folder that it reads: their checksums become part of the run's key."""
    stamp: Callable[[Any], dict[str, Any]] = lambda config: {}
    """What else decides the result and stands in no config: part of the run's key too."""


TEACHERS: dict[str, Teacher] = {
    "worked": Teacher(WorkedConfig, worked),
    "human": Teacher(HumanConfig, human),
    "recorded": Teacher(RecordedConfig, recorded, lambda config: (config.file,)),
    "openai": Teacher(OpenAIConfig, ask, stamp=prompts_used),
    "anthropic": Teacher(AnthropicConfig, ask, stamp=prompts_used),
    "local": Teacher(LocalConfig, ask, model_files, prompts_used),
    "mixture": Teacher(MixtureConfig, mixture, mixed_files, mixed_stamps),
}


def make_rationales(
    teacher: Teacher, config: Config, data: Path, at: Workplace, limits: Limits = NO_DESK.limits
) -> None:
    """Stage `rationales`: what the teacher writes about the training problems, in their order."""
    problems = read_lines(at.parents["problems"] / "train.jsonl", Problem)
    desk = Desk(at.journal, limits, at.device)
    write_lines(at.out / "rationales.jsonl", teacher.write(config, problems, data, desk))
