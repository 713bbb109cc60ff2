"""What a killed run resumes from: weights, optimizer, random generators and what the loop says of itself.

Safetensors and JSON alone; a checkpoint is complete or absent. Generators are those of the CPU.
"""

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from stillroom.files import folder_atomic


def tensors_once(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors, each storage once (tied weights share one)."""
    state, seen = {}, set()
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            state[name] = tensor.detach().contiguous()
    return state


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def save(folder: Path, module: nn.Module, optimizer: Optimizer, said: dict[str, Any]) -> None:
    """Write `checkpoint-STEP`, then remove the ones before it. `said` is the loop's own state, `step` among it."""
    older = complete(folder)
    slots = optimizer.state_dict()["state"]
    tensors = {f"{index}.{name}": tensor for index, slot in slots.items() for name, tensor in slot.items()}
    generators = {"python_rng": random.getstate(), "numpy_rng": _plain(np.random.get_state())}  # noqa: NPY002
    with folder_atomic(folder / f"checkpoint-{said['step']}") as target:
        save_file(tensors_once(module), target / "model.safetensors")
        save_file({**tensors, "torch_rng": torch.get_rng_state()}, target / "optimizer.safetensors")
        (target / "state.json").write_text(json.dumps({**said, **generators}))
    for path in older:
        shutil.rmtree(path)


def restore(folder: Path, module: nn.Module, optimizer: Optimizer) -> dict[str, Any] | None:
    """Bring everything back from the newest complete checkpoint; returns what the loop said, None without one."""
    found = complete(folder)
    if not found:
        return None
    said: dict[str, Any] = json.loads((found[-1] / "state.json").read_text())
    module.load_state_dict(load_file(found[-1] / "model.safetensors"), strict=False)  # tied tensors are stored once
    tensors = load_file(found[-1] / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("torch_rng"))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    kind, numbers, gauss = said["python_rng"]
    random.setstate((kind, tuple(numbers), gauss))
    np.random.set_state(tuple(said["numpy_rng"]))  # noqa: NPY002
    return said


def _plain(state: Any) -> list[Any]:
    return [part.tolist() if isinstance(part, np.ndarray) else part for part in state]
