"""The one loop: `fit(objective, batches, config, …)` on Accelerate. It knows no method and no task.

An objective is a module whose `forward(**tensors)` returns a dictionary of weighted loss terms, each a mean over the
batch's labels. The loop sums that dictionary, back-propagates the sum and logs the terms, so what is logged is what is
trained. Batches are a pure function of their index; the state of a run is therefore its step, its weights, its
optimizer and its random generators, and a run that is killed and resumed ends with the same bytes as one left alone.

Legend: B rows, T tokens.
"""

import contextlib
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from stillroom.config import Config
from stillroom.errors import TrainingError
from stillroom.files import write_atomic
from stillroom.progress import Meter, meter
from stillroom.store import Workplace
from stillroom.training import checkpoints


class FitConfig(Config):
    """What decides a run of the loop. The learning rate warms up linearly, then follows the schedule to zero."""

    updates: int = Field(2000, ge=1)
    batch_size: int = Field(64, ge=1)
    """Rows in one micro-batch of one process."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches in one update."""
    learning_rate: float = Field(2e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: int = Field(50, ge=0)
    """Updates of linear warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    """Applied to matrices, not to biases and norms."""
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["no", "bf16"] = "bf16"
    log_every: int = Field(20, ge=1)
    snapshots: int = Field(0, ge=0)
    """How many log-spaced checkpoints of the weights to keep for lenses over training."""
    diverged: float = Field(4.0, gt=1)
    """Stop when the mean loss of 20 updates exceeds this multiple of the mean of the first 20."""
    seed: int = 0
    threads: int = Field(2, ge=1)


@dataclass(frozen=True)
class Batch:
    """Tensors for one forward pass, the number of labels that they carry, and the problems that they come from."""

    tensors: dict[str, Tensor]
    labels: int
    problems: tuple[str, ...]


Batches = Callable[[int], Batch]
"""The micro-batch of an index: a pure function, so that position is all there is to resume."""


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


def fit(objective: nn.Module, batches: Batches, config: FitConfig, at: Workplace) -> None:
    """Train `objective` in place, resuming from `at.partial` where a killed run stopped.

    Writes `metrics.jsonl` and, with `config.snapshots`, `snapshots/step-N.safetensors` below `at.out`. Raises
    `TrainingError` when a term is not finite or the loss diverges, with the step, the term and the problems.
    """
    with accelerating(config, at) as accelerator:
        Loop(objective, batches, config, at, accelerator).run()


@contextlib.contextmanager
def accelerating(config: FitConfig, at: Workplace) -> Iterator[Accelerator]:
    """An Accelerator with this run's precision; its process-wide state is cleared, so that runs do not meet."""
    AcceleratorState._reset_state()  # noqa: SLF001 (a second precision in one process is refused otherwise)
    accelerator = Accelerator(
        mixed_precision=config.precision,
        cpu=at.device == "cpu",
        log_with=list(at.trackers) or None,
        project_dir=str(at.out.parent / "trackers"),
    )
    if at.trackers:
        accelerator.init_trackers(at.name.replace("/", "-"), config=_flat(config))
    try:
        yield accelerator
    finally:
        accelerator.end_training()
        AcceleratorState._reset_state()  # noqa: SLF001


def _flat(config: FitConfig) -> dict[str, Any]:
    return {key: value if isinstance(value, int | float | str) else str(value) for key, value in config}


class Loop:
    """One run: the mutable state between two updates, and how to save and restore it."""

    def __init__(
        self, objective: nn.Module, batches: Batches, config: FitConfig, at: Workplace, accelerator: Accelerator
    ) -> None:
        self.config, self.at, self.accelerator, self.batches = config, at, accelerator, batches
        random.seed(config.seed)
        np.random.seed(config.seed)  # noqa: NPY002 (seeds what libraries draw from)
        torch.manual_seed(config.seed)
        trained = [p for p in objective.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.model = accelerator.unwrap_model(self.objective)
        self.step = 0
        self.losses: list[float] = []
        self.lines: list[str] = []
        self.snapshots = snapshot_steps(config.updates, config.snapshots)

    def run(self) -> None:
        self.restore()
        self.objective.train()
        saved = time.monotonic()
        with meter(self.at.name or "fit", self.config.updates, "updates", self.step) as bar:
            while self.step < self.config.updates:
                self.update(bar)
                if time.monotonic() - saved > self.at.checkpoint_seconds and self.step < self.config.updates:
                    self.at.check()
                    self.save()
                    saved = time.monotonic()
        if self.accelerator.is_main_process:
            write_atomic(self.at.out / "metrics.jsonl", "".join(self.lines))
            if self.snapshots:
                shutil.copytree(self.at.partial / "snapshots", self.at.out / "snapshots", dirs_exist_ok=True)

    def update(self, bar: Meter) -> None:
        """One optimizer step over `accumulate` micro-batches, each weighted by its share of the update's labels."""
        config, world = self.config, self.accelerator.num_processes
        first = self.step * config.accumulate * world + self.accelerator.process_index
        micro = [self.batches(first + i * world) for i in range(config.accumulate)]
        labels = sum(batch.labels for batch in micro)
        total = int(self.accelerator.reduce(torch.tensor(labels, device=self.accelerator.device)))
        rate = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms: dict[str, Tensor] = {}
        for i, batch in enumerate(micro):
            last = i == len(micro) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.objective):
                tensors = {name: tensor.to(self.accelerator.device) for name, tensor in batch.tensors.items()}
                share = batch.labels / total * world  # gradients are averaged over processes
                weighted = {name: term * share for name, term in self.objective(**tensors).items()}
                self.accelerator.backward(torch.stack(list(weighted.values())).sum())
            for name, term in weighted.items():
                terms[name] = terms.get(name, torch.zeros_like(term)) + term.detach()
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), config.clip)
        logged = {name: float(self.accelerator.reduce(term, "mean")) for name, term in terms.items()}
        self.guard(logged, float(norm), micro)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.log(logged, rate, float(norm))
        bar.advance(note=f"loss {sum(logged.values()):.4f}")
        if self.step in self.snapshots and self.accelerator.is_main_process:
            self.snapshot()

    def guard(self, terms: dict[str, float], norm: float, micro: list[Batch]) -> None:
        """Stop before a broken update reaches the weights."""
        problems = ", ".join([p for batch in micro for p in batch.problems][:8])
        where = f"update {self.step + 1} of {self.config.updates} (problems {problems}, …)"
        for name, value in {**terms, "the gradient's norm": norm}.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.at.name}: {name} became {value} at {where}. "
                    "Try a lower learning_rate or precision=no, and look at those problems."
                )
        self.losses = [*self.losses[:20], *self.losses[20:][-19:], sum(terms.values())]
        if len(self.losses) == 40 and sum(self.losses[20:]) > self.config.diverged * sum(self.losses[:20]):
            raise TrainingError(
                f"{self.at.name}: the loss diverged at {where}: {sum(self.losses[20:]) / 20:.3g} over 20 updates, "
                f"{sum(self.losses[:20]) / 20:.3g} over the first 20. Try a lower learning_rate or a longer warmup."
            )

    def log(self, terms: dict[str, float], rate: float, norm: float) -> None:
        if self.step % self.config.log_every and self.step != self.config.updates:
            return
        row = {"step": self.step, "learning_rate": rate, "gradient_norm": norm, **terms}
        self.lines.append(json.dumps(row) + "\n")
        self.accelerator.log({key: value for key, value in row.items() if key != "step"}, step=self.step)

    def snapshot(self) -> None:
        folder = self.at.partial / "snapshots"
        folder.mkdir(exist_ok=True)
        save_file(checkpoints.tensors_once(self.model), folder / f"step-{self.step}.safetensors")

    def save(self) -> None:
        if self.accelerator.is_main_process:
            said = {"step": self.step, "losses": self.losses, "lines": self.lines}
            checkpoints.save(self.at.partial, self.model, self.optimizer, said)

    def restore(self) -> None:
        """Take up the newest complete checkpoint, if there is one."""
        if said := checkpoints.restore(self.at.partial, self.model, self.optimizer):
            self.step, self.losses, self.lines = said["step"], said["losses"], said["lines"]
