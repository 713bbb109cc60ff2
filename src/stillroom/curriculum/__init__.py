"""Curriculum: rationales become lessons. Every arm gets the same problems in the same order.

* `normal`     question → <reasoning> rationale </reasoning> answer
* `distilled`  question → answer
* `latent`     question → answer, with the rationale's lines beside it for a student to put its thoughts in their place
* `step_by_step`  two tasks, each named before the question: question → rationale, and question → answer
* the primer   what the base learns: the language of the stories, single steps, and single lines of reasoning
"""

import random
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.files import read_lines, write_lines
from stillroom.records import Lesson, Problem, Rationale
from stillroom.store import Workplace
from stillroom.tasks import NARRATED

VERSION = 2
ANSWER, RATIONALE = "answer", "rationale"
TASKS = {ANSWER: "[answer] ", RATIONALE: "[rationale] "}
"""What stands before the question in distilling step-by-step (Hsieh et al. 2023, section 3.2)."""


class LessonsConfig(Config):
    variant: Literal["normal", "distilled", "latent", "step_by_step"]


def conclusion(answer: str) -> str:
    return f"The answer is {answer}."


def completion(problem: Problem, rationale: Rationale, variant: str) -> str:
    """What the student is to write, in the format that the whole field's founding data has."""
    if variant in ("distilled", "latent"):
        return conclusion(problem.answer)
    return f"<reasoning>\n{rationale.text}\n</reasoning>\n{conclusion(problem.answer)}"


def _taught(at: Workplace) -> list[tuple[Problem, Rationale]]:
    """The training problems that have a rationale, each with its first one, in the problems' order."""
    rationales: dict[str, Rationale] = {}
    for rationale in read_lines(at.parents["rationales"] / "rationales.jsonl", Rationale):
        rationales.setdefault(rationale.problem, rationale)
    problems = read_lines(at.parents["problems"] / "train.jsonl", Problem)
    return [(problem, rationales[problem.id]) for problem in problems if problem.id in rationales]


def make_lessons(config: LessonsConfig, at: Workplace) -> None:
    """Stage `lessons`: one lesson for each training problem that has a rationale, two in distilling step-by-step."""
    lessons = [lesson for problem, rationale in _taught(at) for lesson in _lessons(problem, rationale, config.variant)]
    write_lines(at.out / "lessons.jsonl", lessons)


def _lessons(problem: Problem, rationale: Rationale, variant: str) -> list[Lesson]:
    text = completion(problem, rationale, variant)
    if variant == "latent":
        lines = tuple(line for line in rationale.text.splitlines() if line.strip())
        told = {"rationale": lines, "value_at": text.rindex(problem.answer)}
        return [Lesson(problem=problem.id, prompt=problem.question, completion=text, **told)]
    if variant != "step_by_step":
        return [Lesson(problem=problem.id, prompt=problem.question, completion=text)]
    texts = {ANSWER: conclusion(problem.answer), RATIONALE: rationale.text}
    return [
        Lesson(problem=problem.id, prompt=TASKS[term] + problem.question, completion=text, term=term)
        for term, text in texts.items()
    ]


def make_given(file: Path, at: Workplace) -> None:
    """Stage `lessons` from a file: JSON lines with `prompt` and `completion`, as TRL reads them."""
    rows = read_lines(file, Given)
    lessons = [
        Lesson(problem=r.problem or f"line {i}", prompt=r.prompt, completion=r.completion)
        for i, r in enumerate(rows, 1)
    ]
    write_lines(at.out / "lessons.jsonl", lessons)


class Given(BaseModel):
    """A row of somebody's file; what else it holds is left alone."""

    model_config = ConfigDict(frozen=True)
    prompt: str
    completion: str
    problem: str = ""


class PrimerConfig(Config):
    """How much of each the base learns; what is asked beyond what exists is repeated."""

    singles: int = Field(21_000, ge=0)
    """Problems that ask for one step (the split `narrated`, or those with one step), question → answer."""
    lines: int = Field(2_000, ge=0)
    """Single lines of rationales, out of their context: the base knows how a step is written, never how two follow."""
    stories: int = Field(300, ge=0)
    """Questions without an answer, as text. They end with the question mark: a line end that is followed by nothing
    would teach the base to leave long problems unanswered, which is not the same as being unable to solve them."""
    seed: int = 0


def make_primer(config: PrimerConfig, at: Workplace) -> None:
    """Stage `primer`: lessons for the base. A lesson without a prompt is learned whole, as language."""
    taught = _taught(at)
    rng = random.Random(f"primer {config.seed}")
    narrated = at.parents["problems"] / f"{NARRATED}.jsonl"
    simple = read_lines(narrated, Problem) if narrated.exists() else [p for p, _ in taught if len(p.steps) == 1]
    singles = [Lesson(problem=p.id, prompt=p.question, completion=conclusion(p.answer)) for p in simple]
    lines = [
        Lesson(problem=p.id, prompt="", completion=rng.choice(lines_of))
        for p, r in taught
        if (lines_of := [line for line in r.text.splitlines() if line.strip()])
    ]
    stories = [Lesson(problem=p.id, prompt="", completion=p.question) for p, _ in taught]
    lessons = [
        *_draw(rng, singles, config.singles, "problems of a single step"),
        *_draw(rng, lines, config.lines, "rationales"),
        *_draw(rng, stories, config.stories, "problems"),
    ]
    write_lines(at.out / "lessons.jsonl", lessons)


def _draw(rng: random.Random, pool: list[Lesson], count: int, what: str) -> list[Lesson]:
    """`count` lessons, each of the pool equally often but for one."""
    if count and not pool:
        raise DataError(
            f"the primer asks for {count} lessons from {what}, and the training split has none: set it to 0"
        )
    drawn: list[Lesson] = []
    while len(drawn) < count:
        drawn += rng.sample(pool, min(len(pool), count - len(drawn)))
    return drawn
