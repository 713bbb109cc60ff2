"""The processes of a run: Accelerate's state, FSDP, and the signal that asks a run to stop."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import nn

from stillroom.store import Workplace
from stillroom.training.schedule import FitConfig


def count() -> int:
    """How many processes `torchrun` or `accelerate launch` has started for this run; 1 without them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def together(device: str) -> Iterator[None]:
    """Join the run's other processes. They wait for each other for as long as a stage may take that one does alone."""
    if count() == 1:
        yield
        return
    on_cpu = device == "cpu" or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu, timeout=timedelta(days=14))
    yield
    state.destroy_process_group()


def called(compute: bool | None) -> bool:
    """What the first process says to all: whether they are to compute a stage together. The others pass None."""
    said = [compute]
    broadcast_object_list(said)
    return bool(said[0])


def wait() -> None:
    PartialState().wait_for_everyone()


@contextlib.contextmanager
def accelerating(config: FitConfig, at: Workplace) -> Iterator[Accelerator]:
    """An Accelerator with this run's precision. What it keeps, the process group excepted, is cleared after."""
    AcceleratorState._reset_state()  # noqa: SLF001 (a second precision in one process is refused otherwise)
    accelerator = Accelerator(
        mixed_precision="bf16" if config.precision == "bfloat16" else "no",
        cpu=at.device == "cpu",
        log_with=list(at.trackers) or None,
        project_dir=str(at.out.parent / "trackers"),
    )
    if at.trackers:
        told = {key: value if isinstance(value, int | float | str) else str(value) for key, value in config}
        accelerator.init_trackers(at.name.replace("/", "-"), config=told)
    try:
        yield accelerator
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        AcceleratorState._reset_state()  # noqa: SLF001


def shard(accelerator: Accelerator, objective: nn.Module) -> None:
    """Let `accelerator` share every layer of `objective` out over the processes (FSDP2), where there is more than one.

    The plugin is set on the state and not handed over: on a CPU, Accelerate drops one that is handed over.
    """
    if accelerator.distributed_type == DistributedType.NO:
        return
    layers = {name for module in objective.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap" if layers else "no_wrap",
        transformer_cls_names_to_wrap=sorted(layers) or None,
        cpu_ram_efficient_loading=False,
    )
    shared = PartialState._shared_state  # noqa: SLF001
    accelerator.state.distributed_type = shared["distributed_type"] = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come: inside, it is noted, so that the update which runs can be finished and saved."""
    heard = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield heard.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: heard.set())
    try:
        yield heard.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
