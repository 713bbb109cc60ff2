"""Faults that a store meets in its life: bits that flip, files cut short, copies, moved clocks, work in progress."""

import functools
import os
import random
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stillroom import pipeline
from stillroom.cli import app
from stillroom.errors import StoreError, TrainingError
from stillroom.evaluation import EvaluateConfig, predict
from stillroom.files import AppendOnly
from stillroom.leases import Lease, machine
from stillroom.oracle import TraceConfig
from stillroom.oracle.tables import read, whole_part
from stillroom.oracle.traces import collect
from stillroom.recipes import load_recipe
from stillroom.records import content_key
from stillroom.store import Stage, Store
from stillroom.teachers.journal import Journal, Row
from stillroom.teachers.requests import Ask, Reply
from stillroom.training import checkpoints
from stillroom.training.loop import Loop
from test_oracle_traces import thinker
from toys import stage, student, sums

CHEAP = ("problems", "contamination", "rationales", "kept", "lessons", "primer", "copies", "scores")
"""Stages that are made in a moment."""


def plan() -> list[Stage]:
    return pipeline.plan("abacus-small", load_recipe("abacus-small", ["settings.device=cpu"]))


@pytest.fixture
def store(small_store: Path, tmp_path: Path) -> Store:
    """A copy of the small run's store, to be harmed."""
    return Store(shutil.copytree(small_store, tmp_path / "store"))


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


@pytest.mark.parametrize("harm", [flip, cut])
def test_a_harmed_file_of_any_stage_is_never_reused(harm, store: Store) -> None:
    """Of every kind of stage every file, the manifest among them."""
    rng, kinds = random.Random(0), set()
    for one in plan():
        folder = store.find(one)
        assert folder is not None, one.name
        kinds.add(one.stage)
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size):
            whole = path.read_bytes()
            harm(path, rng)
            assert store.find(one) is None, path
            assert path.name in str(store.damage(folder)), path
            path.write_bytes(whole)
        assert store.find(one) == folder
    assert kinds == set(pipeline.STAGES) - {"crosscoder", "comparison", "sizes"}


def test_what_was_harmed_is_made_again_with_the_same_content(store: Store, capsys) -> None:
    rng, stages = random.Random(1), [one for one in plan() if one.stage in CHEAP]
    before = {one.key: store.manifest(store.folder(one.stage, one.key)).content for one in stages}
    for one in stages:
        files = [p for p in sorted(store.folder(one.stage, one.key).rglob("*")) if p.is_file() and p.stat().st_size]
        flip(rng.choice(files), rng)
    for one in stages:
        store.ensure(one)
    assert {one.key: store.manifest(store.folder(one.stage, one.key)).content for one in stages} == before
    assert capsys.readouterr().err.count("set aside as") == len(stages)
    assert len(list(store.root.glob("*/*.damaged-*"))) == len(stages)


def test_a_folder_in_the_place_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    store, one, other = Store(tmp_path), stage("one"), stage("other")
    shutil.copytree(store.ensure(one), store.folder("echo", other.key))
    assert store.find(other) is None
    assert (store.ensure(other) / "said.txt").read_text() == "other"


def test_every_door_refuses_a_harmed_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_STORE", str(store.root))
    people = {one.name: store.folder(one.stage, one.key) for one in plan() if one.stage in ("student", "reader")}
    latent, normal = people["latent"], people["normal"]
    lessons = next(store.folder(s.stage, s.key) for s in plan() if s.name == "lessons normal")
    report = next(store.folder(s.stage, s.key) for s in plan() if s.stage == "report")
    for path in (
        latent / "model.safetensors", normal / "tokenizer.json", lessons / "lessons.jsonl", report / "report.html"
    ):  # fmt: skip
        flip(path, random.Random(2))
    for call in (
        ["evaluate", f"student/{normal.name}", "--task", "abacus", "-n", "2"],
        ["evaluate", str(latent), "--task", "abacus", "--thoughts", "6,0"],
        ["trace", f"student/{latent.name[:8]}", "--task", "abacus", "-n", "2", "-o", str(store.root / "t")],
        ["ask", str(latent), "How many?", "Which step matters most?"],
        ["diff", str(normal), str(normal)],
        ["export", str(normal), "--merged", "-o", str(store.root / "m")],
        ["export", f"a={lessons}", "--to", "trl", "-o", str(store.root / "l")],
        ["report", "abacus-small"],
    ):
        said = CliRunner().invoke(app, call)
        assert isinstance(said.exception, StoreError), (call, said.exception)
        assert "is not what was committed" in str(said.exception), call
    assert not [name for name in ("t", "m", "l") if (store.root / name).exists()]


def test_a_student_is_found_by_its_key_when_a_damaged_one_lies_aside(store: Store, monkeypatch) -> None:
    from stillroom.cli.app import student_folder

    monkeypatch.setenv("STILLROOM_STORE", str(store.root))
    one = next(s for s in plan() if s.name == "normal")
    folder = store.folder("student", one.key)
    shutil.copytree(folder, folder.with_name(f"{one.key}.damaged-1"))
    assert student_folder(f"student/{one.key}") == folder


def test_a_store_on_another_machine_is_reused_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another path, another host; leases of processes that run where the store came from lie about in it."""
    for one in plan():
        lease = store.folder(one.stage, one.key).with_name(f".{one.key}.lease")
        lease.write_text('{"host": "elsewhere", "pid": 1, "started": 1.0, "token": "t", "beat": 3}')
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    here = Store(store.root, patience=0.1)
    for one in plan():
        made = functools.partial(pytest.fail, f"{one.name} was made again")
        assert here.ensure(one, before=made) == store.folder(one.stage, one.key)
    from stillroom.students import load

    assert [load(store.folder("student", s.key)) for s in plan() if s.stage == "student"]


def test_moved_clocks_change_nothing_that_is_reused(store: Store) -> None:
    for number, path in enumerate(p for p in store.root.rglob("*") if p.is_file()):
        then = time.time() + (number % 3 - 1) * 1e8
        os.utime(path, (then, then))
    assert all(store.find(one) is not None for one in plan())


def test_a_lease_outlives_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder beats every 0.1 s; waiters whose wall clock leaps by days wait all the same."""
    mine, theirs = (Lease(tmp_path / "lease", tmp_path / "lock", 0.6) for _ in range(2))
    monkeypatch.setattr("stillroom.leases._here", lambda held: False)  # so that the heartbeat alone tells
    assert mine.acquire(pytest.fail, lambda: False)
    wall, began = time.time, time.monotonic()
    leaps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: wall() + leaps.uniform(-1e6, 1e6))
    assert not theirs.acquire(lambda why: None, lambda: time.monotonic() - began > 1.5)
    mine.check()
    mine.release()


def test_processes_that_cannot_see_each_other_do_not_take_each_other_for_dead(tmp_path: Path) -> None:
    """Two containers of one host name: the number of the other's process is nobody's here."""
    mine = Lease(tmp_path / "lease", tmp_path / "lock", 60)
    held = {"host": socket.gethostname(), "pid": 4_000_000, "started": 1.0, "token": "t", "beat": 0}
    (tmp_path / "lease").write_text(__import__("json").dumps({**held, "machine": "another kernel"}))
    assert mine.try_acquire() is not None
    (tmp_path / "lease").write_text(__import__("json").dumps({**held, "machine": machine()}))
    assert mine.try_acquire() is None
    mine.release()


@pytest.mark.parametrize("text", ["[]", "{}", '{"host": 3}', "\x00\xff", '{"hosu": "a", "pid": 1, "started": 1.0}'])
def test_a_harmed_lease_counts_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "lease").write_text(text)
    mine = Lease(tmp_path / "lease", tmp_path / "lock")
    assert mine.try_acquire() is None
    mine.release()


def harmed(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """The content with one bit flipped, or cut short, so many times."""
    rng = random.Random(seed)
    for number in range(count):
        at = rng.randrange(len(content))
        flipped = bytes([*content[:at], content[at] ^ (1 << rng.randrange(8)), *content[at + 1 :]])
        yield flipped if number % 3 else content[:at]


def test_answers_that_were_harmed_on_disk_are_asked_again(tmp_path: Path, capsys) -> None:
    asked, config = student(), EvaluateConfig(new_tokens=4, batch_size=4)
    journal = tmp_path / "test.jsonl"
    whole = predict(asked, sums(12), config, journal, "toy")
    content = journal.read_bytes()
    for harm in harmed(content, 40):
        journal.write_bytes(harm)
        assert predict(asked, sums(12), config, journal, "toy") == whole
        assert journal.read_bytes() == content
    assert "is not what was written" in capsys.readouterr().err


ASKED = Ask("api", "m", "http://127.0.0.1", ({"role": "user", "content": "How many?"},), 8, None, 0)


def journal_after(path: Path, *changes: str) -> Path:
    """A journal of one reply, changed beneath its feet."""
    with Journal(path / "journal.sqlite") as journal:
        journal.write([(ASKED, Reply("There are seven.", "stop", 3, 4), "")])
        assert journal.find(ASKED.key()) is not None
    database = sqlite3.connect(path / "journal.sqlite")
    for change in changes:
        database.execute(f"UPDATE requests SET {change}")
    database.commit()
    database.close()
    return path / "journal.sqlite"


@pytest.mark.parametrize(
    "change",
    [
        "text = 'There are eleven.'", "teacher = 'other'", "model = 'other'", "endpoint = 'other'", "messages = '[]'",
        "parameters = '{}'", "sample = 1", "at = at + 1", "input_tokens = 30", "output_tokens = 9e999",
        "text = x'ff00'",
    ],
)  # fmt: skip
def test_a_reply_that_was_harmed_on_disk_is_neither_used_nor_counted(tmp_path: Path, change: str) -> None:
    with Journal(journal_after(tmp_path, change)) as journal:
        with pytest.raises(StoreError, match="is not as it was written"):
            journal.find(ASKED.key())
        with pytest.raises(StoreError, match="is not as it was written"):
            list(journal.summary())


def test_a_journal_whose_checksums_cover_the_replies_alone_is_still_read(tmp_path: Path) -> None:
    told = content_key([ASKED.key(), "recorded", "There are seven.", "stop", "", 3, 4, 0])
    with Journal(journal_after(tmp_path, f"checksum = '{told}'")) as journal:
        assert journal.find(ASKED.key()) == Row(Reply("There are seven.", "stop", 3, 4), "")
        (row,) = journal.summary()
    assert (row["requests"], row["input_tokens"], row["output_tokens"], row["first"]) == (1, 3, 4, row["last"])


def test_a_journal_from_before_checksums_keeps_what_was_paid_for(tmp_path: Path) -> None:
    path = journal_after(tmp_path)
    database = sqlite3.connect(path)
    database.execute("ALTER TABLE requests DROP COLUMN checksum")
    database.close()
    for _ in range(2):
        with Journal(path) as journal:
            assert journal.find(ASKED.key()) == Row(Reply("There are seven.", "stop", 3, 4), "")
            assert sum(row["output_tokens"] for row in journal.summary()) == 4
            journal.write([(replace(ASKED, sample=1), None, "refused")])
    database = sqlite3.connect(path)
    database.execute("UPDATE requests SET text = 'There are eleven.'")
    database.commit()
    database.close()
    with Journal(path) as journal, pytest.raises(StoreError, match="is not as it was written"):
        journal.find(ASKED.key())


def test_a_reply_after_a_failure_is_kept_as_it_is_written(tmp_path: Path) -> None:
    turned = replace(ASKED, messages=({"content": "How many?", "role": "user"},))
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.write([(ASKED, None, "refused")])
        journal.write([(turned, Reply("There are seven.", "stop", 3, 4), "")])
        assert journal.find(ASKED.key()) == Row(Reply("There are seven.", "stop", 3, 4), "")


def test_a_table_keeps_what_stands_before_the_harm(tmp_path: Path) -> None:
    with AppendOnly(tmp_path / "t") as table:
        table.append([f"row {i} é" for i in range(9)])
    content = (tmp_path / "t").read_bytes()
    for harm in harmed(content, 300):
        (tmp_path / "t").write_bytes(harm)
        with AppendOnly(tmp_path / "t") as table:
            assert table.lines == [f"row {i} é" for i in range(len(table.lines))]


def test_a_harmed_checkpoint_is_never_trained_on_from(tmp_path: Path) -> None:
    import torch

    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoints.save(tmp_path, module, optimizer, {"step": 7, "losses": [], "lines": []})
    assert checkpoints.restore(tmp_path, module, optimizer)["step"] == 7
    rng = random.Random(3)
    for path in sorted((tmp_path / "checkpoint-7").iterdir()):
        whole = path.read_bytes()
        for harm in (flip, flip, cut):
            harm(path, rng)
            with pytest.raises(TrainingError, match="damaged after it was written"):
                checkpoints.restore(tmp_path, module, optimizer)
            path.write_bytes(whole)
    assert checkpoints.restore(tmp_path, module, optimizer)["step"] == 7


def test_a_harmed_snapshot_is_not_kept(tmp_path: Path) -> None:
    import torch

    from toys import workplace

    at = workplace(tmp_path)
    loop = Loop.__new__(Loop)
    loop.at, loop.model, loop.step, loop.main = at, torch.nn.Linear(3, 2), 5, True
    loop.snapshot()
    loop.keep_snapshots()
    assert (tmp_path / "snapshots" / "step-5.safetensors").exists()
    assert len(list((tmp_path / "snapshots").iterdir())) == 1
    flip(at.partial / "snapshots" / "step-5.safetensors", random.Random(4))
    with pytest.raises(TrainingError, match="damaged after it was written"):
        loop.keep_snapshots()


def test_harmed_parts_of_traces_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, config = thinker(), TraceConfig(train=6, test=6, new_tokens=2, part=2)
    collect(asked, sums(6), config, tmp_path / "whole", "test", tmp_path / "parts-0")
    monkeypatch.setattr("stillroom.oracle.tables.join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        collect(asked, sums(6), config, tmp_path / "out", "test", tmp_path / "parts")
    monkeypatch.undo()
    harmed_files = sorted((tmp_path / "parts").glob("0*"))
    assert len(harmed_files) == 12
    for path in harmed_files[:8:3]:
        flip(path, random.Random(5))
    assert not whole_part(tmp_path / "parts", 0)
    collect(asked, sums(6), config, tmp_path / "out", "test", tmp_path / "parts")
    first, again = read(tmp_path / "whole", "test"), read(tmp_path / "out", "test")
    assert first.rows == again.rows
    assert first.thoughts_NKd.equal(again.thoughts_NKd)
