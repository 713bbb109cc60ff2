"""A cluster of two nodes, each with workers of its own, makes what one process makes; a killed worker loses nothing."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from stillroom import pipeline
from stillroom.errors import ClusterError, DataError, UsageError
from stillroom.pipeline import cluster
from stillroom.pipeline.cluster import Room
from stillroom.recipes import Settings, load_recipe
from stillroom.store import Stage, Store
from toys import stage

TINY = (
    "students={normal: {variant: normal}, distilled: {variant: distilled}}", "sweep={fit.updates: [100, 101]}",
    "base.fit={updates: 2, threads: 1}", "fit={threads: 1}", "lenses={}", "settings.checkpoint_seconds=0.2",
    "task={name: abacus, largest: 12, steps: 2, train: 60, narrated: 30, validation: 5, test: 12}",
    "base.primer={singles: 30, lines: 10, stories: 10}", "settings.device=cpu",
    "evaluate={train_sample: 10, new_tokens: 4, batch_size: 8, threads: 1}",
)  # fmt: skip


def planned(*overrides: str) -> tuple[list[Stage], Settings]:
    cells = load_recipe("abacus-small", [*TINY, *overrides])
    return pipeline.plan("tiny", cells), next(iter(cells.values())).settings


def contents(root: Path) -> dict[str, tuple[str, str]]:
    """Every stage by its key, with the hash of its bytes and its name."""
    return {f"{m.stage}/{m.key}": (m.content, m.name) for m in Store(root).manifests()}


class Killer(threading.Thread):
    """Kills the first worker that has saved a student's training in the middle; notes which raylets had workers."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.killed, self.raylets, self.over = root, "", set(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.01):
            for lease in self.root.glob("*/.*.lease"):
                self._look(lease)

    def _look(self, lease: Path) -> None:
        try:
            pid = json.loads(lease.read_text())["pid"]
            self.raylets.add(psutil.Process(pid).ppid())
            key = lease.name[1:].removesuffix(".lease")
            saved = list((lease.parent / key / "partial").glob("*/*"))
        except (OSError, ValueError, psutil.Error):
            return  # it ended, or a checkpoint got its name, while it was looked at
        if not self.killed and lease.parent.name == "student" and saved:
            os.kill(pid, signal.SIGKILL)
            self.killed = key


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head and a second node, a processor each, as processes of their own."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
    for name, value in cluster.QUIET.items():
        os.environ.setdefault(name, value)
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
    nodes = Cluster(initialize_head=True, head_node_args=node)
    nodes.add_node(num_cpus=1, object_store_memory=80 << 20)
    yield nodes.address
    nodes.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("local")
    plan, settings = planned()
    pipeline.run(plan, Store(root), settings)
    return root


def test_a_sweep_on_two_nodes_gives_the_local_keys_bytes_and_findings_though_a_worker_is_killed(
    address: str, local: Path, tmp_path: Path, capfd
) -> None:
    plan, settings = planned()
    assert sum(stage.stage == "student" for stage in plan) == 4
    killer = Killer(tmp_path)
    killer.start()
    page = cluster.run(plan, Store(tmp_path), settings, address)
    killer.over.set()
    killer.join()
    assert killer.killed, "no worker was killed in the middle"
    assert len(killer.raylets) == 2, "one node did all the work"
    assert contents(tmp_path) == contents(local)
    assert (page / "effects.csv").read_bytes() == (local / page.relative_to(tmp_path) / "effects.csv").read_bytes()
    told = capfd.readouterr().err
    begun = [line for line in told.splitlines() if f"student/{killer.killed}" in line and "> " in line]
    assert len(begun) == 2, told


def test_one_student_s_answers_are_shared_out_and_come_out_the_same(
    address: str, local: Path, tmp_path: Path, capfd
) -> None:
    plan, settings = planned("sweep={}", "fit.updates=100", "evaluate.new_tokens=5")
    (asked,) = [stage for stage in plan if stage.name == "predictions normal"]
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    for root in (shared, alone):
        shutil.copytree(local, root)
    pipeline.run([asked], Store(alone), settings)
    folder = cluster.run([asked], Store(shared), settings, address)
    told = capfd.readouterr().err
    for part in ("1 of 2", "2 of 2"):
        assert f"> predictions normal ({part})" in told
    assert contents(shared) == contents(alone)
    assert sorted(path.name for path in folder.parent.glob(".*")) == []


def test_after_sigterm_the_caller_says_how_to_go_on(tmp_path: Path) -> None:
    long = ["base.fit.updates=100000", "settings.device=cpu"]
    call = [sys.executable, "-m", "stillroom", "run", "abacus-small", *long, "--on", "ray"]
    with subprocess.Popen(
        call, env={**os.environ, "STILLROOM_STORE": str(tmp_path)}, stderr=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stderr is not None
        before = list(itertools.takewhile(lambda line: "> base:" not in line, caller.stderr))
        caller.terminate()
        said = caller.stderr.read()
    assert caller.returncode == 75, (before, said)
    assert "stillroom: stopped by SIGTERM; what was done is kept: run the same command to go on" in said
    assert "Traceback" not in said


def test_what_a_stage_raises_is_raised_here(address: str, local: Path, tmp_path: Path) -> None:
    plan, settings = planned("teacher={name: human}")
    with pytest.raises(DataError, match="no training problem has a solution of its own"):
        cluster.run(plan, Store(tmp_path), settings, address)


def test_a_stage_is_given_a_processor_a_thread_and_never_more_than_a_machine_has() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": cpus, **gpus}} for cpus, gpus in ((2.0, {}), (4.0, {"GPU": 1.0}))]
    room = Room.of([*nodes, {"Alive": False, "Resources": {"CPU": 64.0}}])
    assert room == Room(cpus=6, gpus=1, most_cpus=4)
    plan, _ = planned("fit.threads=3", "evaluate={threads: 9}")
    of = {stage.stage: stage for stage in plan}
    assert room.needs(of["student"], "cpu") == {"num_cpus": 3, "num_gpus": 0}
    assert room.needs(of["student"], "auto") == {"num_cpus": 3, "num_gpus": 1}
    assert room.needs(of["predictions"], "cpu")["num_cpus"] == 4
    assert room.needs(of["scores"], "auto") == {"num_cpus": 1, "num_gpus": 0}
    looked = "crosscoder={pairs: [[base, distilled]], fit: {threads: 2}}"
    plan, _ = planned(looked, "students={distilled: {variant: distilled}}", "sweep={}")
    (one,) = [stage for stage in plan if stage.stage == "crosscoder"]
    assert room.needs(one, "cpu")["num_cpus"] == 2  # its threads stand deeper in its config
    many = Room(cpus=36, gpus=8, most_cpus=9)
    assert [many.parts(of["predictions"], count, "cpu") for count in (1, 2, 3, 5)] == [4, 2, 1, 1]
    assert [many.parts(of["predictions"], 3, "cuda"), many.parts(of["student"], 1, "cpu")] == [2, 1]


class Handed:
    """What is handed to Ray: for every task its stage, how often a worker may do its like, and what it waits for."""

    def __init__(self, room: Room, *overrides: str, without: int = 0) -> None:
        """`without` so many bases that are made already."""
        plan, settings = planned(*overrides)
        made = [stage.key for stage in plan if stage.stage == "base"][:without]
        self.kinds = {stage.key: stage.stage for stage in plan}
        self.most: dict[str, set[object]] = {}
        self.waits: dict[str, tuple[str, ...]] = {}
        with tempfile.TemporaryDirectory() as root:
            store = Store(Path(root))
            store.find = lambda stage: Path(root) if stage.key in made else None  # type: ignore[method-assign]
            list(cluster._submit(self, plan, store, settings, room))

    def remote(self, *function: object, **given: object) -> Any:
        def task(name: str, **_: object) -> Any:
            def handed(visit: object, stage: Stage, share: object, *before: str) -> str:
                key = f"{stage.key} {name.rpartition(' ')[2]}" if share else stage.key
                self.most.setdefault(stage.stage, set()).add(given.get("max_calls"))
                self.waits[key] = before
                return key

            return SimpleNamespace(remote=handed)

        return SimpleNamespace(options=task) if function else lambda _: SimpleNamespace(options=task)

    def of(self, kind: str) -> dict[str, tuple[str, ...]]:
        return {key: waits for key, waits in self.waits.items() if self.kinds.get(key) == kind}


def test_the_worker_of_a_base_or_a_student_does_nothing_after_it() -> None:
    most = Handed(Room(cpus=1, gpus=0, most_cpus=1)).most
    assert {kind: most[kind] for kind in ("base", "student", "lessons", "predictions")} == {
        "base": {1}, "student": {1}, "lessons": {None}, "predictions": {None},
    }  # fmt: skip


def test_parts_of_one_stage_do_not_wait_for_each_other() -> None:
    waits = Handed(Room(cpus=12, gpus=0, most_cpus=12), "sweep={}").waits
    parts = {key for key in waits if "/" in key}
    assert len(parts) == 12  # two of each of six models' answers
    assert not [key for key in parts if parts & set(waits[key])]
    for key in {key.partition(" ")[0] for key in parts}:
        assert {part for part in parts if part.startswith(key)} <= set(waits[key])


def test_several_bases_that_take_every_processor_come_before_what_takes_one() -> None:
    wide = ("sweep={base.fit.updates: [2, 3]}", "base.fit.threads=2")
    both = Handed(Room(cpus=2, gpus=0, most_cpus=2), *wide)
    bases = set(both.of("base"))
    assert len(bases) == 2
    assert all(bases <= set(waits) for waits in both.of("student").values())
    assert not any(bases & set(waits) for waits in [*both.of("base").values(), *both.of("primer").values()])
    (last,) = (bare := Handed(Room(cpus=2, gpus=0, most_cpus=2), *wide, without=1)).of("base")
    assert all(last in waits for waits in bare.of("student").values())
    roomy = Handed(Room(cpus=4, gpus=0, most_cpus=4), *wide)
    assert all(len(bases & set(waits)) == 1 for waits in roomy.of("student").values())
    one = Handed(Room(cpus=2, gpus=0, most_cpus=2), "base.fit.threads=2")
    assert all(len(set(one.of("base")) & set(waits)) == 0 for waits in one.of("lessons").values())


def test_a_machine_with_other_code_or_without_the_folder_is_named(tmp_path: Path) -> None:
    here = cluster.Visit(tmp_path / "store", 60.0, tmp_path, cluster.code_version(), {})
    for visit, words in (
        (replace(here, code="0.0.1+abc"), "this run is of 0.0.1\\+abc: install the same on every machine"),
        (replace(here, home=tmp_path / "elsewhere"), "elsewhere is not there .*call from one that all machines share"),
    ):
        with pytest.raises(ClusterError, match=words):
            cluster.work(visit, stage(), None)


def test_wrong_calls_are_refused_before_a_cluster_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UsageError, match="device=cuda:1 names one machine's"):
        cluster.run([stage()], Store(tmp_path), Settings(device="cuda:1"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="run it without torchrun"):
        cluster.run([stage()], Store(tmp_path), Settings())
