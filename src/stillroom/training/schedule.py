"""What decides a run of the loop, and what follows from it: the learning rate, the snapshots, the micro-batches."""

import math
from typing import Annotated, Literal

from pydantic import Field

from stillroom.config import Config

Beta = Annotated[float, Field(ge=0, lt=1)]


class FitConfig(Config):
    """What decides a run of the loop. The learning rate warms up linearly, then follows the schedule to zero."""

    updates: int = Field(2000, ge=1)
    epochs: float | None = Field(None, gt=0)
    """Passes over the lessons, in place of `updates`."""
    batch_size: int = Field(64, ge=1)
    """Rows in one update, over all processes."""
    micro_batch: int | None = Field(None, ge=1)
    """Most rows that one process computes at once (memory); all of its share of the update where it is not given."""
    learning_rate: float = Field(2e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: int = Field(50, ge=0)
    """Updates of linear warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    """Applied to matrices, not to biases and norms."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """In what products are computed; the weights stay as they are held."""
    log_every: int = Field(20, ge=1)
    snapshots: int = Field(0, ge=0)
    """How many log-spaced checkpoints of the weights to keep for lenses over training."""
    diverged: float = Field(4.0, gt=1)
    """Stop when the mean loss of 20 updates exceeds this multiple of the mean of the first 20."""
    seed: int = Field(0, ge=0, lt=2**31)
    threads: int = Field(2, ge=1)
    packing: bool = False
    """Rows of a micro-batch end to end in one, kept apart by the attention, in place of padding. Worth it with flash
    attention; on a CPU padding costs less."""

    def settled(self, rows: int) -> "FitConfig":
        """For so many rows: no update has more, and `updates` are counted from `epochs` where those are given.

        Counted updates may be few: a tenth of them at most warms up.
        """
        size = min(self.batch_size, rows)
        if self.epochs is None:
            return self.model_copy(update={"batch_size": size})
        updates = math.ceil(self.epochs * rows / size)
        warmup = min(self.warmup, updates // 10)
        return self.model_copy(update={"batch_size": size, "updates": updates, "warmup": warmup, "epochs": None})


def learning_rate(config: FitConfig, step: int) -> float:
    """The rate of update `step` (from 0): `step + 1` of `warmup` parts, then the schedule down to 0 at `updates`."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.updates - config.warmup)
    factor = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
    return config.learning_rate * factor[config.schedule]


def snapshot_steps(updates: int, count: int) -> set[int]:
    """`count` log-spaced updates, the last among them."""
    return {round(updates ** (i / count)) for i in range(1, count + 1)} if count else set()


def parts(config: FitConfig, world: int) -> int:
    """Into how many micro-batches an update is cut: a multiple of the number of processes."""
    at_once = (config.micro_batch or config.batch_size) * world
    return world * math.ceil(config.batch_size / at_once)
