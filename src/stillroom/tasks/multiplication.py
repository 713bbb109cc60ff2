"""multiplication: two numbers of n digits each, least significant digit first, by partial products.

The format is that of implicit chain of thought (Deng et al. 2024, arXiv 2405.14838): 2967 × 6361 is asked as
`7 6 9 2 * 1 6 3 6`, and its chain is `7 6 9 2 0 + 0 2 0 8 7 1 ( 7 8 9 0 8 1 ) + …`: each partial product with the zeros
of its place, the running sum in brackets. A number is padded on its right, to n + 1 digits for the first partial
product, one more for each further one, and 2n for the product. `solution` holds this chain; `steps` the same values.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from stillroom.config import Config
from stillroom.records import Problem, Step
from stillroom.tasks.skeletons import take


class MultiplicationConfig(Config):
    name: Literal["multiplication"] = "multiplication"
    seed: int = 0
    digits: int = Field(4, ge=1, le=20)
    """Digits of either number; the first of them is never 0."""
    train: int = Field(30_000, ge=1)
    narrated: int = Field(6_000, ge=0)
    """Products with a number of one digit, which ask for one step; met again and again where there are fewer."""
    validation: int = Field(300, ge=1)
    test: int = Field(1_000, ge=1)


def written(value: int, width: int) -> str:
    """Digits from the last to the first, with zeros behind: `written(71, 4)` is `1 7 0 0`."""
    return " ".join(reversed(f"{value:0{width}d}"))


def problem(a: int, b: int, digits: int) -> Problem:
    """a × b, where `a` has `digits` digits and `b` as many, or one."""
    places = len(str(b))
    partial = [int(d) * 10**i * a for i, d in enumerate(reversed(str(b)))]
    wide = [digits + 1 + i for i in range(places)]
    terms = [written(value, width) for value, width in zip(partial, wide, strict=True)]
    sums = [written(sum(partial[: i + 1]), wide[i]) for i in range(places)]
    shown = written(a, digits)
    steps = [
        Step(expression=f"{shown} * {'0 ' * i}{d}", value=term)
        for i, (d, term) in enumerate(zip(reversed(str(b)), terms, strict=True))
    ]
    adds = [Step(expression=f"{sums[i - 1]} + {terms[i]}", value=sums[i]) for i in range(1, places)]
    order = [steps[0], *(step for pair in zip(steps[1:], adds, strict=True) for step in pair)]
    chain = " + ".join([terms[0], *(f"{terms[i]} ( {sums[i]} )" for i in range(1, places - 1)), *terms[1:][-1:]])
    return Problem(
        task="multiplication", id="", question=f"{shown} * {written(b, places)}", answer=sums[-1], kind="text",
        steps=tuple(order), skeleton="*".join(map(str, sorted((a, b)))), solution=chain,
    )  # fmt: skip


def draws(config: MultiplicationConfig, split: str, places: int) -> Iterator[Problem]:
    """Products of numbers with `digits` and with `places` digits, endlessly."""
    rng = random.Random(f"multiplication {config.seed} {split}")
    while True:
        a, b = (rng.randint(10 ** (n - 1), 10**n - 1) for n in (config.digits, places))
        yield problem(a, b, config.digits)


def splits(config: MultiplicationConfig, _data: Path) -> dict[str, list[Problem]]:
    """`train`, `validation`, `test`, and `narrated` with one step each. a × b and b × a stand in one split."""
    found = {
        split: take(count, split, split, draws(config, split, config.digits))
        for split, count in (("train", config.train), ("validation", config.validation), ("test", config.test))
    }
    if config.digits > 1 and config.narrated:
        short = draws(config, "narrated", 1)
        found["narrated"] = [
            next(short).model_copy(update={"id": f"narrated-1-{i + 1}"}) for i in range(config.narrated)
        ]
    return found
