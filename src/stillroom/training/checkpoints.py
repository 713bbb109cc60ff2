"""What a killed run resumes from: weights, optimizer, random generators and what the loop says of itself.

Safetensors and JSON alone; a checkpoint is complete or absent. It is written whole by the main process, whatever the
number of processes and however the weights are shared out, so that any other number can take it up.
"""

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from stillroom.errors import TrainingError
from stillroom.files import folder_atomic, intact, stamp

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
PARTS = ("model.safetensors", "optimizer.safetensors", "state.json")
LOADED = StateDictOptions(full_state_dict=True, strict=False)  # tied tensors are stored once, frozen ones not at all
SLOTS = StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole(module: nn.Module) -> dict[str, Tensor]:
    """The trained weights, tied ones once, gathered from all processes, on the main one; every process must ask."""
    own = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    state: dict[str, Any] = get_model_state_dict(module, options=WHOLE)
    return {name: tensor.contiguous() for name, tensor in state.items() if name in own}


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def save(folder: Path, module: nn.Module, optimizer: Optimizer, said: dict[str, Any], main: bool = True) -> None:
    """Write `checkpoint-STEP`, then remove the ones before it. `said` is the loop's own state, `step` among it.

    Every process calls this, since weights and generators are gathered from all; the `main` one writes.
    """
    weights = whole(module)
    slots: Any = get_optimizer_state_dict(module, optimizer, options=SLOTS)
    generators = gather_object([_generators(_device(module))])
    if not main:
        return
    older = complete(folder)
    state = slots["state"].items()
    tensors = {f"{name}.{slot}": tensor for name, of in state for slot, tensor in of.items()}
    tensors |= {f"{name}.{rank}": state for rank, told in enumerate(generators) for name, state in told[0].items()}
    with folder_atomic(folder / f"checkpoint-{said['step']}") as target:
        save_file(weights, target / "model.safetensors")
        save_file(tensors, target / "optimizer.safetensors")
        (target / "state.json").write_text(json.dumps({**said, "generators": [told[1] for told in generators]}))
        for name in PARTS:
            stamp(target / name)
    for path in older:
        shutil.rmtree(path)


def restore(folder: Path, module: nn.Module, optimizer: Optimizer, rank: int = 0) -> dict[str, Any] | None:
    """Bring everything back from the newest complete checkpoint; returns what the loop said, None without one.

    A process that the run did not have when it was saved goes on with the generators that it was seeded with. Raises
    `TrainingError` for a checkpoint that was damaged since.
    """
    found = complete(folder)
    if not found:
        return None
    if harmed := [name for name in PARTS if not intact(found[-1] / name)]:
        raise TrainingError(
            f"{found[-1]}: this checkpoint was damaged after it was written ({', '.join(harmed)}); remove it, and the "
            "training begins anew"
        )
    said: dict[str, Any] = json.loads((found[-1] / "state.json").read_text())
    tensors = load_file(found[-1] / "optimizer.safetensors")
    weights: dict[str, Any] = dict(load_file(found[-1] / "model.safetensors"))
    slots: Any = get_optimizer_state_dict(module, optimizer)
    state: Any = {
        name: {slot: tensors[f"{name}.{slot}"] for slot in of if f"{name}.{slot}" in tensors}
        for name, of in slots["state"].items()
    }
    set_model_state_dict(module, weights, options=LOADED)
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(module, optimizer, {**slots, "state": state}, options=options)
    generators = said.pop("generators")
    if rank < len(generators):
        kind, numbers, gauss = generators[rank]["python"]
        random.setstate((kind, tuple(numbers), gauss))
        np.random.set_state(tuple(generators[rank]["numpy"]))  # noqa: NPY002
        device = _device(module)
        there = [
            name for name in _tensors_of_generators(device) if f"{name}.{rank}" in tensors
        ]  # the device may differ
        _set_generators(device, {name: tensors[f"{name}.{rank}"] for name in there})
    return said


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _generators(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """This process's random generators: torch's as tensors, Python's and numpy's as JSON holds them."""
    state = [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]  # noqa: NPY002
    return _tensors_of_generators(device), {"python": random.getstate(), "numpy": state}


def _tensors_of_generators(device: torch.device) -> dict[str, Tensor]:
    states = {"rng_cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["rng_device"] = torch.get_device_module(device).get_rng_state()
    return states


def _set_generators(device: torch.device, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["rng_cpu"])
    if "rng_device" in states:
        torch.get_device_module(device).set_rng_state(states["rng_device"])
