"""abacus: GSM8K-like word problems from a grammar, whose every intermediate value is known.

One quantity starts at a number and is changed step by step (+, −, ×), always within 0..`largest`; names, objects and
sentence shapes vary, and a sentence that does not matter may stand between. What is computed, without the names, is the
problem's *skeleton*, as in `5 +7 -3`. A skeleton belongs to one split only (by its hash), so no test problem is a
renamed training problem. The split `compositional` holds adjacent pairs of operations that no other split contains,
and `longer` has one step more than training.
"""

import random
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from stillroom.config import Config
from stillroom.records import Problem, Step
from stillroom.tasks.skeletons import home

NAMES = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gita", "Hugo")
OBJECTS = ("apples", "books", "coins", "eggs", "pens", "shells", "stamps", "toys")
STARTS = ("{a} has{n} {o}.", "{a} owns{n} {o}.", "{a} brings{n} {o}.")
CHANGES = {
    "+": ("{a} buys{n} more.", "{a} finds{n} {o}.", "{b} gives{n} more."),
    "-": ("{a} loses{n} {o}.", "{a} sells{n} {o}.", "{b} takes{n} away."),
    "*": ("Each becomes{n} {o}.", "They multiply by{n}."),
}
DISTRACTORS = ("{b} has{n} {p}.", "{b} is{n} today.")
TOTALS = ("{a} has{n} {o}.", "That makes{n} {o}.")
QUESTIONS = ("How many {o} does {a} have?", "How many {o} are there?")


class AbacusConfig(Config):
    name: Literal["abacus"] = "abacus"
    seed: int = 0
    largest: int = Field(30, ge=5, le=1000)
    """Every start and intermediate value lies in 0..largest."""
    operand: int = Field(9, ge=2)
    """The largest number that is added, taken away or multiplied by."""
    steps: int = Field(5, ge=1, le=20)
    """Training has 1..steps steps."""
    train: int = Field(30_000, ge=1)
    narrated: int = Field(21_000, ge=3)
    """Training stories that state every total but the last, so that they ask for one step: two thirds have one step,
    one third two (so that every fact of arithmetic is met, also where a problem of that one step is for testing)."""
    validation: int = Field(100, ge=1)
    """Validation, test, compositional and longer problems are counted per number of steps."""
    test: int = Field(300, ge=1)
    distractor: float = Field(0.0, ge=0, le=1)
    """Share of problems with a sentence whose number does not matter; they take a small base several times as long."""
    held_out_pair: str = Field("*-", pattern=r"^[-+*]{2}$")
    """Two operations that are adjacent in the compositional split and nowhere else."""


class Skeleton(NamedTuple):
    start: int
    changes: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return " ".join([str(self.start), *(f"{op}{n}" for op, n in self.changes)])

    def pairs(self) -> set[str]:
        ops = [op for op, _ in self.changes]
        return {a + b for a, b in pairwise(ops)}

    def steps(self) -> tuple[Step, ...]:
        value, steps = self.start, []
        for op, n in self.changes:
            before, value = value, apply(op, value, n)
            steps.append(Step(expression=f"{before} {op} {n}", value=str(value)))
        return tuple(steps)


def apply(op: str, value: int, n: int) -> int:
    return {"+": value + n, "-": value - n, "*": value * n}[op]


def draw_skeleton(rng: random.Random, steps: int, config: AbacusConfig) -> Skeleton:
    """A chain of operations, each drawn evenly from those that keep the value in range."""
    start = value = rng.randint(1, config.largest)
    changes = []
    for _ in range(steps):
        highest = {"+": config.largest - value, "-": value, "*": config.largest // value if value else 0}
        ranges = {op: (2 if op == "*" else 1, min(config.operand, high)) for op, high in highest.items()}
        op = rng.choice([op for op, (low, high) in ranges.items() if low <= high])
        n = rng.randint(*ranges[op])
        changes.append((op, n))
        value = apply(op, value, n)
    return Skeleton(start, tuple(changes))


def split_of(skeleton: Skeleton, held_out_pair: str) -> str:
    if held_out_pair in skeleton.pairs():
        return "compositional"
    return home(str(skeleton))


def tell(rng: random.Random, skeleton: Skeleton, config: AbacusConfig, narrated: bool) -> str:
    """The skeleton as a story in words; a narrated one states every total but the last."""
    a, b = rng.sample(NAMES, 2)
    o, p = rng.sample(OBJECTS, 2)

    def say(shapes: tuple[str, ...], n: int) -> str:
        return rng.choice(shapes).format(a=a, b=b, o=o, p=p, n=f" {n}")

    sentences = [say(STARTS, skeleton.start)]
    for (op, n), step in zip(skeleton.changes, skeleton.steps(), strict=True):
        sentences += [say(CHANGES[op], n), *([say(TOTALS, int(step.value))] if narrated else [])]
    if narrated:
        sentences.pop()
    if rng.random() < config.distractor:
        sentences.insert(rng.randint(1, len(sentences)), say(DISTRACTORS, rng.randint(1, config.largest)))
    return " ".join([*sentences, say(QUESTIONS, 0)])


def generate(config: AbacusConfig, split: str, steps: int, distinct: bool) -> Iterator[Problem]:
    """Problems of one split and length, endlessly; `distinct` ends the stream when no new skeleton turns up."""
    rng = random.Random(f"{config.seed} {split} {steps}")
    where = {"longer": "test", "narrated": "train"}.get(split, split)
    seen: set[Skeleton] = set()
    barren = 0
    while barren < 20_000:
        skeleton = draw_skeleton(rng, steps, config)
        barren += 1
        if split_of(skeleton, config.held_out_pair) != where or (distinct and skeleton in seen):
            continue
        barren = 0
        seen.add(skeleton)
        worked = skeleton.steps()
        yield Problem(
            task="abacus",
            id=f"{split}-{steps}-{len(seen)}" if distinct else f"{split}-{steps}-{rng.getrandbits(48):012x}",
            question=tell(rng, skeleton, config, split == "narrated"),
            answer=worked[-1].value,
            steps=worked,
            skeleton=str(skeleton),
        )


def splits(config: AbacusConfig, _data: Path) -> dict[str, list[Problem]]:
    """All splits, ordered by number of steps. Evaluation splits hold each skeleton once."""
    lengths = range(1, config.steps + 1)

    def take(split: str, steps: int, count: int, distinct: bool) -> list[Problem]:
        return list(islice(generate(config, split, steps, distinct), count))

    def evaluation(split: str, count: int) -> list[Problem]:
        return [problem for steps in lengths for problem in take(split, steps, count, True)]

    shares = [config.train // config.steps + (n <= config.train % config.steps) for n in lengths]
    return {
        "train": [
            problem for n, share in zip(lengths, shares, strict=True) for problem in take("train", n, share, False)
        ],
        "narrated": [p for n in (1, 2) for p in take("narrated", n, config.narrated // 3 * (3 - n), False)],
        "validation": evaluation("validation", config.validation),
        "test": evaluation("test", config.test),
        "compositional": evaluation("compositional", config.test),
        "longer": take("longer", config.steps + 1, config.test, True),
    }
