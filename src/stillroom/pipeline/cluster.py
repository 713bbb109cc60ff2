"""A plan is carried out by the machines of a Ray cluster, over a store that all of them see.

A stage is a Ray task that begins when its parents are done; one student's answers are shared out over several tasks
where there is room for more than there are students. Ray decides where a task runs, and begins it again when its worker
dies; what was done before lies in the store and is not done twice. What tasks say comes to the terminal. Keys and bytes
are those of a local run: a stage sets its own threads, whatever Ray would have it use.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.devices import give_back
from stillroom.errors import STOPPED, ClusterError, Interrupted, StillroomError, UsageError
from stillroom.pipeline.running import given
from stillroom.progress import meter
from stillroom.recipes import Settings
from stillroom.store import Stage, Store, code_version
from stillroom.training import processes

SHARED_OUT = "predictions"
"""The kind of stage that is done in parts."""
ON_A_DEVICE = ("base", "student", "predictions", "lens")
"""The kinds of stages that compute on an accelerator where there is one."""
ALONE = ("base", "student")
"""The kinds of stages whose worker ends with them: what training leaves in a process is as much as others need."""
RETRIES = 3
"""How often a task is begun again whose worker died."""
LOOK_S = 1.0
"""Seconds between two looks at whether to stop."""
OBJECTS = 100 << 20
"""Bytes that Ray keeps in memory for results: ours lie in the store."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_worker_niceness": "0"}
"""Nothing about a run leaves its machines, every line of every worker is shown, and workers run as any program does:
beside another one, threads that wait for each other lose far more than their share. All unless set otherwise."""


def run(plan: Sequence[Stage], store: Store, settings: Settings, address: str | None = None) -> Path:
    """Carry the plan out on the cluster at `address`, or on this machine as one; returns the last stage's folder.

    Raises what the first stage to fail raised, `UsageError` without Ray or such a cluster, and `ClusterError` when a
    task's worker died too often.
    """
    if processes.count() > 1:
        raise UsageError("--on ray starts its own processes: run it without torchrun")
    if settings.device[-1].isdigit():
        raise UsageError(f"settings.device={settings.device} names one machine's; on a cluster say cuda, cpu or auto")
    with connected(address) as ray, processes.listening() as stopped:  # Ray's own handler prints a stack and aborts
        room = Room.of(ray.nodes())
        _follow(ray, list(_submit(ray, plan, store, settings, room)), stopped)
    return store.folder(plan[-1].stage, plan[-1].key)


@dataclass(frozen=True)
class Room:
    """What a cluster has: processors and accelerators in all, and the most of them on one machine."""

    cpus: int
    gpus: int
    most_cpus: int

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, Any]]) -> "Room":
        held = [node["Resources"] for node in nodes if node["Alive"]]
        cpus = [int(one.get("CPU", 0)) for one in held]
        return cls(sum(cpus), int(sum(one.get("GPU", 0) for one in held)), max(cpus, default=0))

    def needs(self, stage: Stage, device: str) -> dict[str, int]:
        """What a stage is given: a processor a thread, as far as one machine has them, and an accelerator."""
        on_gpu = device != "cpu" and stage.stage in ON_A_DEVICE and self.gpus > 0
        return {"num_cpus": max(1, min(threads(stage.config), self.most_cpus)), "num_gpus": int(on_gpu)}

    def parts(self, stage: Stage, count: int, device: str) -> int:
        """In how many parts to do a stage when `count` of its kind are to be done."""
        needs = self.needs(stage, device)
        slots = self.gpus if needs["num_gpus"] else self.cpus // needs["num_cpus"]
        return max(1, slots // count) if stage.stage == SHARED_OUT else 1


def threads(config: Mapping[str, Any]) -> int:
    """How many a stage's config asks for; a crosscoder's stand below `settings`, a reader's and an oracle's below
    `reader`."""
    own = config.get("settings") or config.get("reader") or config
    asked: int = own.get("fit", own).get("threads", 1)
    return asked


@dataclass(frozen=True)
class Visit:
    """What a worker is told: where the store is, where the run was called, by which code, and the settings."""

    root: Path
    patience: float
    home: Path
    code: str
    settings: Mapping[str, Any]


def work(visit: Visit, stage: Stage, share: tuple[int, int] | None, *parents: None) -> None:
    """A Ray task: make a stage, or do one part of it. Paths are meant as where the run was called."""
    if visit.code != code_version():
        told = f"it has Stillroom {code_version()}, this run is of {visit.code}"
        raise ClusterError(f"{socket.gethostname()}: {told}: install the same on every machine")
    try:
        os.chdir(visit.home)
    except OSError as error:
        told = f"the folder {visit.home} is not there ({error.strerror})"
        raise ClusterError(f"{socket.gethostname()}: {told}: call from one that all machines share") from None
    store = Store(visit.root, visit.patience)
    if share is None:
        store.ensure(stage, **visit.settings)
    else:
        store.part(stage, share, **visit.settings)
    give_back()


def _submit(ray: Any, plan: Sequence[Stage], store: Store, settings: Settings, room: Room) -> Iterator[Any]:
    """Give Ray all that is still to be made; yields the promise of each stage.

    Several bases of which each takes every processor come first, with what they are made from: while one of them
    waits, Ray holds processors back for it, which students could use.
    """
    visit = Visit(store.root.absolute(), store.patience, Path.cwd(), code_version(), given(settings))
    todo = [stage for stage in plan if store.find(stage) is None]
    count = sum(stage.stage == SHARED_OUT for stage in todo)
    task, last = ray.remote(work), ray.remote(max_calls=1)(work)
    promised: dict[str, Any] = {}
    bases = [stage for stage in plan if stage.stage == "base"]
    filling = {stage.key for stage in bases if room.needs(stage, settings.device)["num_cpus"] == room.cpus > 1}
    filling = {stage.key for stage in todo if stage.key in filling and len(filling) > 1}
    early = _made_from(todo, filling)
    for stage in sorted(todo, key=lambda stage: stage.key not in early):
        awaited = {parent.key for parent in stage.parents.values()} | (set() if stage.key in early else filling)
        before = [promise for key, promise in promised.items() if key in awaited]
        needs = room.needs(stage, settings.device)
        parts = room.parts(stage, count, settings.device)
        shares = [
            task.options(name=f"{stage.name} {part + 1}/{parts}", max_retries=RETRIES, **needs).remote(
                visit, stage, (part, parts), *before
            )
            for part in range(parts if parts > 1 else 0)
        ]
        whole = (last if stage.stage in ALONE else task).options(name=stage.name, max_retries=RETRIES, **needs)
        promised[stage.key] = whole.remote(visit, stage, None, *before, *shares)
        yield promised[stage.key]


def _made_from(stages: Sequence[Stage], wanted: set[str]) -> set[str]:
    """The keys of these stages and of all that they are made from."""
    for stage in reversed(stages):  # what a stage is made from stands before it
        wanted = wanted | {parent.key for parent in stage.parents.values() if stage.key in wanted}
    return wanted


def _follow(ray: Any, promises: list[Any], stopped: Callable[[], bool]) -> None:
    """Wait for all, and raise what the first to fail raised, or `Interrupted` once SIGTERM has come."""
    with meter("cluster", len(promises), "stages") as bar:
        while promises:
            done, promises = ray.wait(promises, num_returns=1, timeout=LOOK_S)
            if stopped():
                raise Interrupted(STOPPED)
            for promise in done:
                try:
                    ray.get(promise)
                except ray.exceptions.RayTaskError as error:
                    raise (error.cause if isinstance(error.cause, StillroomError) else error) from None
                except ray.exceptions.RayError as error:
                    raise ClusterError(f"a worker died {RETRIES + 1} times, or its machine is gone: {error}") from error
                bar.advance()


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, at a running cluster or at one that this machine is alone for as long as the block runs."""
    for name, value in {**QUIET, "RAY_COLOR_PREFIX": str(int(sys.stderr.isatty()))}.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UsageError("--on ray needs Ray: pip install -e '.[ray]' in the checkout") from None
    alone = {"address": "local", "object_store_memory": OBJECTS, "include_dashboard": False}
    where = alone if address is None else {"address": address}
    try:
        ray.init(**where, logging_level=logging.WARNING, log_to_driver=True)
    except (ConnectionError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise UsageError(f"--ray-address {address}: no cluster to be had ({told}); see `ray status`") from None
    try:
        yield ray
    finally:
        ray.shutdown()
