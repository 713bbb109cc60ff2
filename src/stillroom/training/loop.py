"""One run of the loop: the mutable state between two updates, and how to save and restore it."""

import contextlib
import json
import math
import random
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from stillroom.errors import Interrupted, TrainingError, short_of_memory
from stillroom.files import intact, stamp, write_atomic
from stillroom.progress import Meter, meter
from stillroom.store import Workplace
from stillroom.training import checkpoints
from stillroom.training.processes import listening, shard
from stillroom.training.schedule import FitConfig, learning_rate, parts, snapshot_steps


@dataclass(frozen=True)
class Batch:
    """Tensors for one forward pass, over how many things each term is a mean, and the problems that they come from."""

    tensors: dict[str, Tensor]
    counts: Mapping[str, int]
    problems: tuple[str, ...]


Batches = Callable[[int, int, int], Batch]
"""(update, part, parts) → that part of the update: a pure function, so that position is all there is to resume.

The parts of an update are its rows, shared out; every one names the same terms in `counts`, if need be with a 0."""


class Loop:
    def __init__(
        self,
        objective: nn.Module,
        batches: Batches,
        config: FitConfig,
        at: Workplace,
        accelerator: Accelerator,
        resets: Collection[int],
    ) -> None:
        self.config, self.at, self.accelerator, self.batches = config, at, accelerator, batches
        self.resets = resets
        self.rank, self.main = accelerator.process_index, accelerator.is_main_process
        self.parts = parts(config, accelerator.num_processes)
        seed = config.seed + self.rank  # so that no two processes drop the same units
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (seeds what libraries draw from)
        torch.manual_seed(seed)
        trained = [p for p in objective.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
        if at.shard:
            shard(accelerator, objective)
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.model = accelerator.unwrap_model(self.objective)
        self.step = 0
        self.losses: list[float] = []
        self.lines: list[str] = []
        self.snapshots = snapshot_steps(config.updates, config.snapshots)

    def run(self) -> dict[str, Tensor]:
        self.restore()
        self.objective.train()
        saved = time.monotonic()
        with listening() as stopped, meter(self.at.name or "fit", self.config.updates, "updates", self.step) as bar:
            while self.step < self.config.updates:
                due = time.monotonic() - saved > self.at.checkpoint_seconds
                stop, due = self.update(bar, stopped(), due)
                if stop or (due and self.step < self.config.updates):
                    self.at.check()
                    self.save()
                    saved = time.monotonic()
                    if stop:
                        where = f"stopped after update {self.step} of {self.config.updates}"
                        raise Interrupted(f"{self.at.name}: {where}, which is saved: run the same command to go on")
        if self.main:
            write_atomic(self.at.out / "metrics.jsonl", "".join(self.lines))
            if self.snapshots:
                self.keep_snapshots()
        return checkpoints.whole(self.model)

    def update(self, bar: Meter, stop: bool, due: bool) -> tuple[bool, bool]:
        """One optimizer step; each part of the update weighs by its share of what a term is a mean of.

        Returns whether any process was asked to stop, and whether the main one finds a checkpoint due.
        """
        world = self.accelerator.num_processes
        micro = [self.batches(self.step, part, self.parts) for part in range(self.rank, self.parts, world)]
        said = [*(sum(batch.counts[name] for batch in micro) for name in micro[0].counts), stop, due and self.main]
        *totals, stops, dues = self.accelerator.reduce(torch.tensor(said, device=self.accelerator.device)).tolist()
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.step in self.resets:
            self.optimizer.optimizer.state.clear()
        try:
            terms = self.accumulate(micro, dict(zip(micro[0].counts, totals, strict=True)))
            norm = float(self.accelerator.clip_grad_norm_(self.objective.parameters(), self.config.clip))
            logged = {name: float(self.accelerator.reduce(term, "mean")) for name, term in terms.items()}
            self.guard(logged, norm, micro)
            self.optimizer.step()
        except RuntimeError as error:
            raise self.short_of_memory(error) from error
        self.optimizer.zero_grad()
        self.step += 1
        self.log(logged, rate, norm)
        bar.advance(note=f"loss {sum(logged.values()):.4f}")
        if self.step in self.snapshots:
            self.snapshot()
        return stops > 0, dues > 0

    def accumulate(self, micro: list[Batch], totals: Mapping[str, int]) -> dict[str, Tensor]:
        """Gradients of all parts; returns the terms, detached, as sums of this process's shares."""
        terms: dict[str, Tensor] = {}
        for i, batch in enumerate(micro):
            with contextlib.nullcontext() if i == len(micro) - 1 else self.accelerator.no_sync(self.objective):
                tensors = {name: tensor.to(self.accelerator.device) for name, tensor in batch.tensors.items()}
                weighted = {
                    # gradients are averaged over processes, shares are of all of them
                    name: term * (batch.counts[name] / max(1, totals[name]) * self.accelerator.num_processes)
                    for name, term in self.objective(**tensors).items()
                }
                self.accelerator.backward(torch.stack(list(weighted.values())).sum())
            for name, term in weighted.items():
                terms[name] = terms.get(name, torch.zeros_like(term)) + term.detach()
        return terms

    def short_of_memory(self, error: RuntimeError) -> Exception:
        """What to say of an error of torch's that means too little memory; any other is given back as it is."""
        text = str(error)
        if not short_of_memory(error):
            return error
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)", text)
        free = re.search(r"of which ([\d.]+ ?\w+) is free", text)
        left = free[1] if free else f"{psutil.virtual_memory().available / 2**30:.2f} GiB"
        amounts = f"{asked[1] if asked else 'more'} was asked for, {left} was free"
        rows = self.config.micro_batch or self.config.batch_size
        return TrainingError(
            f"{self.at.name}: memory ran out at update {self.step + 1}: {amounts}. First lower fit.micro_batch "
            f"(now {rows} rows; the update stays the same), then turn on base.pretrained.checkpointing: a student is "
            "then taught from its beginning. With more memory the same command goes on from the last checkpoint."
        )

    def guard(self, terms: dict[str, float], norm: float, micro: list[Batch]) -> None:
        """Stop before a broken update reaches the weights."""
        problems = ", ".join([p for batch in micro for p in batch.problems][:8])
        where = f"update {self.step + 1} of {self.config.updates} (problems {problems}, …)"
        for name, value in {**terms, "the gradient's norm": norm}.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.at.name}: {name} became {value} at {where}. "
                    "Try a lower learning_rate or precision=float32, and look at those problems."
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
        weights = checkpoints.whole(self.model)
        if self.main:
            folder = self.at.partial / "snapshots"
            folder.mkdir(exist_ok=True)
            path = folder / f"step-{self.step}.safetensors"
            save_file(weights, path)
            stamp(path)

    def keep_snapshots(self) -> None:
        target = self.at.out / "snapshots"
        target.mkdir(exist_ok=True)
        for path in sorted((self.at.partial / "snapshots").glob("*.safetensors")):
            if not intact(path):
                raise TrainingError(
                    f"{path}: damaged after it was written; remove {self.at.partial}, and the training begins anew"
                )
            shutil.copyfile(path, target / path.name)

    def save(self) -> None:
        said = {"step": self.step, "losses": self.losses, "lines": self.lines}
        checkpoints.save(self.at.partial, self.model, self.optimizer.optimizer, said, self.main)

    def restore(self) -> None:
        """Take up the newest complete checkpoint, if there is one."""
        if said := checkpoints.restore(self.at.partial, self.model, self.optimizer.optimizer, self.rank):
            self.step, self.losses, self.lines = said["step"], said["losses"], said["lines"]
