"""polynomial: s_t = s_{t-1} · x_t + b (mod m), asked for its last value (Liang and Pan 2026, arXiv 2602.00449).

Every hop needs the one before it. With a prime modulus no factor x_t (1..m-1) loses anything of the start; with a
composite one, factors that share a divisor with m forget part of it (`remembered`), so that shortcuts exist. Factors
that would make some answers more frequent than others (as 0 where much is forgotten) are not drawn (`even`).
"""

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from stillroom.config import Config
from stillroom.records import Problem, Step
from stillroom.tasks.skeletons import home, take


class PolynomialConfig(Config):
    name: Literal["polynomial"] = "polynomial"
    seed: int = 0
    modulus: int = Field(11, ge=3, le=997)
    """m; prime as 11 or composite as 12."""
    fewest: int = Field(2, ge=1)
    hops: int = Field(5, le=20)
    """Training has fewest..hops hops; the split `longer` has one more."""
    train: int = Field(30_000, ge=1)
    narrated: int = Field(6_000, ge=0)
    """Single hops, from which the base learns the step; they repeat."""
    validation: int = Field(100, ge=1)
    """Validation, test and longer problems are counted per number of hops."""
    test: int = Field(300, ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.fewest > self.hops:
            raise ValueError(f"fewest is {self.fewest}, more than hops, {self.hops}")
        return self


def remembered(factors: Sequence[int], modulus: int) -> int:
    """How many values the end can take when the start runs through all `modulus` values: 1 when nothing is left."""
    return modulus // math.gcd(math.prod(factors) % modulus, modulus)


def problem(start: int, factors: Sequence[int], b: int, modulus: int) -> Problem:
    value, steps = start, []
    for x in factors:
        before, value = value, (value * x + b) % modulus
        steps.append(Step(expression=f"( {before} * {x} + {b} ) mod {modulus}", value=str(value)))
    hops = " ".join(f"Multiply by {x} and add {b}." for x in factors)
    return Problem(
        task="polynomial", id="", question=f"All is modulo {modulus}. Start with {start}. {hops} What is it?",
        answer=str(value), steps=tuple(steps), skeleton=f"{start} {' '.join(map(str, factors))} + {b} mod {modulus}",
    )  # fmt: skip


def even(factors: Sequence[int], modulus: int) -> bool:
    """Whether every end is as frequent as any other when start and b run through all values.

    The end is P·start + C·b: it meets the multiples of gcd(P, C, m) equally often, and nothing else.
    """
    p, c = 1, 0
    for x in factors:
        p, c = p * x % modulus, (c * x + 1) % modulus
    return math.gcd(p, c, modulus) == 1


def draws(config: PolynomialConfig, split: str, hops: int) -> Iterator[Problem]:
    """Problems of one length, endlessly: the start and b even over 0..m-1, the factors over those that are `even`."""
    rng, m = random.Random(f"polynomial {config.seed} {split} {hops}"), config.modulus
    while True:
        factors = [rng.randrange(1, m) for _ in range(hops)]
        if even(factors, m):
            yield problem(rng.randrange(m), factors, rng.randrange(m), m)


def splits(config: PolynomialConfig, _data: Path) -> dict[str, list[Problem]]:
    """`train`, `validation`, `test` ordered by number of hops, `longer`, and `narrated` with one hop each."""
    lengths = range(config.fewest, config.hops + 1)

    def counted(split: str, counts: Sequence[int]) -> list[Problem]:
        pairs = zip(lengths, counts, strict=True)
        return [p for hops, n in pairs for p in take(n, split, split, draws(config, split, hops))]

    share, rest = divmod(config.train, len(lengths))
    single = (p for p in draws(config, "narrated", 1) if home(p.skeleton) == "train")
    return {
        "train": counted("train", [share + (i < rest) for i in range(len(lengths))]),
        "validation": counted("validation", [config.validation] * len(lengths)),
        "test": counted("test", [config.test] * len(lengths)),
        "longer": take(config.test, "longer", "test", draws(config, "longer", config.hops + 1)),
        "narrated": [next(single).model_copy(update={"id": f"narrated-1-{i + 1}"}) for i in range(config.narrated)],
    }
