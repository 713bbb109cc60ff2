"""Fetching: whole files with checksums or none, from folders and from a hub on the loopback; never a traceback."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark_rows import ROWS, line
from hub_server import COMMIT, Hub, dataset, serving
from stillroom.errors import DataError, UsageError
from stillroom.tasks import TASKS, check
from stillroom.tasks.fetching import Fetched, fetch


def folder(at: Path, **files: str) -> Path:
    at.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (at / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return at


def bring(name: str, to: Path, source: Path, again: bool = False) -> list[tuple[str, str]]:
    return [(done.file, done.fate) for done in fetch([name], to, source, again)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    train = "\n".join(line("gsm8k", question=f"What is {i}?") for i in range(3))
    return folder(tmp_path / "source", gsm8k_train=train, gsm8k_test=line("gsm8k") + "\n")


def test_local_files_are_read_copied_and_told_in_checksums(source: Path, tmp_path: Path) -> None:
    to = tmp_path / "data"
    assert bring("gsm8k", to, source) == [("gsm8k_train.jsonl", "fetched"), ("gsm8k_test.jsonl", "fetched")]
    entries = json.loads((to / "checksums.json").read_text())
    assert entries["gsm8k_train.jsonl"]["rows"] == 3
    assert entries["gsm8k_train.jsonl"]["source"] == str(source)
    assert sorted(path.name for path in to.iterdir()) == ["checksums.json", "gsm8k_test.jsonl", "gsm8k_train.jsonl"]


def test_what_is_there_is_not_brought_again_and_what_was_changed_is_not_replaced(source: Path, tmp_path: Path) -> None:
    to = tmp_path / "data"
    bring("gsm8k", to, source)
    (to / "gsm8k_train.jsonl").unlink()
    assert bring("gsm8k", to, source) == [("gsm8k_test.jsonl", "there"), ("gsm8k_train.jsonl", "fetched")]
    (to / "gsm8k_test.jsonl").write_text("mine")
    with pytest.raises(DataError, match=r"gsm8k_test\.jsonl: it was changed since it was fetched: .*--again"):
        bring("gsm8k", to, source)
    assert (to / "gsm8k_test.jsonl").read_text() == "mine"
    bring("gsm8k", to, source, again=True)
    assert (to / "gsm8k_test.jsonl").read_bytes() == (source / "gsm8k_test.jsonl").read_bytes()


def test_a_file_that_somebody_put_there_stays_unless_it_is_the_same(source: Path, tmp_path: Path) -> None:
    to = folder(tmp_path / "data", gsm8k_test=line("gsm8k") + "\n")
    assert dict(bring("gsm8k", to, source))["gsm8k_test.jsonl"] == "fetched"
    to = folder(tmp_path / "other", gsm8k_train="mine")
    with pytest.raises(DataError, match="another file of this name is there that was not fetched"):
        bring("gsm8k", to, source)


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (line("gsm8k")[:-5], r"gsm8k_train\.jsonl:1: not JSON .*cut short"),
        (line("gsm8k", answer="5"), r"gsm8k_train\.jsonl:1: the answer has no `####`"),
        ("", r"gsm8k_train\.jsonl: the file is empty"),
    ],
)
def test_a_broken_file_is_not_copied(train: str, told: str, source: Path, tmp_path: Path) -> None:
    folder(source, gsm8k_train=train)
    with pytest.raises(DataError, match=told):
        bring("gsm8k", tmp_path / "data", source)
    assert not (tmp_path / "data").exists()


def test_a_folder_without_the_benchmark_or_with_a_part_of_it_is_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds nothing of svamp; expected svamp_train\.jsonl, svamp_test\.jsonl or"):
        bring("svamp", tmp_path / "data", source)
    (source / "gsm8k_test.jsonl").unlink()
    with pytest.raises(DataError, match=r"gsm8k_test\.jsonl: no such file, though others"):
        bring("gsm8k", tmp_path / "data", source)


def test_unknown_names_are_told_before_anything_is_done_and_one_failure_stops_no_other(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="unknown dataset 'gsm8': did you mean 'gsm8k'"):
        list(fetch(["gsm8k", "gsm8"], tmp_path / "data", source, False))
    assert not (tmp_path / "data").exists()
    done: list[Fetched] = []
    with pytest.raises(DataError, match="holds nothing of svamp"):
        done.extend(fetch(["svamp", "gsm8k"], tmp_path / "data", source, False))
    assert (tmp_path / "data" / "gsm8k_train.jsonl").exists()


def test_lines_of_icot_become_the_official_files(tmp_path: Path) -> None:
    for index, name in enumerate(("train", "valid", "test")):
        (tmp_path / f"{name}.txt").write_text(f"What is {index}?||<<1+1=2>> <<2*3=6>> #### 6\n")
    to = tmp_path / "data"
    assert [file for file, _ in bring("gsm8k_aug", to, tmp_path)] == [
        f"gsm8k_aug_official_{split}.jsonl" for split in ("train", "validation", "test")
    ]
    row = TASKS["gsm8k_aug"]
    splits = row.splits(row.config(split="official"), to)
    check(splits)
    assert [step.expression for step in splits["train"][0].steps] == ["1+1", "2*3"]


def test_a_folder_that_cannot_be_written_and_damaged_checksums_are_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written .*--to"):
        bring("gsm8k", tmp_path / "file" / "data", source)
    (folder(tmp_path / "data") / "checksums.json").write_text("{")
    with pytest.raises(DataError, match=r"checksums\.json: it is damaged: remove it"):
        bring("gsm8k", tmp_path / "data", source)


# the hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    def questions(split: str, count: int) -> list[dict[str, object]]:
        return [{**ROWS["gsm8k"], "question": f"{split} question {i}?"} for i in range(count)]

    choices = {"label": ["A", "B"], "text": ["bank", "mall"]}
    rows = {"id": "1", "question": "Where?", "question_concept": "x", "choices": choices, "answerKey": "B"}
    others = {"id": "2", "question": "Whence?", "question_concept": "x", "choices": choices, "answerKey": "A"}
    hidden = {**rows, "id": "3", "answerKey": ""}
    with serving(
        openai__gsm8k=dataset("main", train=questions("train", 120), test=questions("test", 4)),
        tau__commonsense_qa=dataset("default", train=[rows], validation=[others], test=[hidden]),
    ) as found:
        yield found


def environment(hub: Hub, tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    home = {"HF_HOME": str(tmp_path / "hf"), "STILLROOM_DATA": str(tmp_path / "data"), "NO_PROXY": "127.0.0.1"}
    return {**kept, **home, "HF_ENDPOINT": hub.endpoint, **more}


def command(*names: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "stillroom", "fetch", *names]


def run(hub: Hub, tmp_path: Path, *names: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*names), env=environment(hub, tmp_path, **more), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_hub_s_own_splits_become_files_that_the_task_reads(hub: Hub, tmp_path: Path) -> None:
    told = run(hub, tmp_path, "gsm8k", "csqa", "--json").stdout.splitlines()
    assert [json.loads(row)["rows"] for row in told] == [120, 4, 1, 1]
    assert {json.loads(row)["revision"] for row in told} == {COMMIT}
    row = TASKS["gsm8k"]
    splits = row.splits(row.config(split="official"), tmp_path / "data")
    check(splits)
    assert {name: len(split) for name, split in splits.items()} == {"train": 20, "validation": 100, "test": 4}
    csqa = TASKS["csqa"].config.parse({"split": "official"}, "")
    with pytest.raises(DataError, match=r"task\.validation is 100, but csqa_official_train\.jsonl holds 1 problems"):
        TASKS["csqa"].splits(csqa, tmp_path / "data")
    hub.broken = True  # what is there is not asked for again
    assert run(hub, tmp_path, "gsm8k").stdout.count("there ") == 2


def test_a_fetch_that_is_killed_leaves_nothing_and_the_next_one_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.stalled = "test-00000"
    with subprocess.Popen(
        command("gsm8k"), env=environment(hub, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as killed:
        assert hub.halfway.wait(30)
        killed.kill()
    assert not (tmp_path / "data").exists()
    hub.stalled = ""
    before = len(hub.got)
    assert run(hub, tmp_path, "gsm8k").stdout.count("fetched ") == 2
    assert sum("train-00000" in name for name in hub.got[before:]) == 0  # it had come whole
    assert len((tmp_path / "data" / "gsm8k_official_train.jsonl").read_text().splitlines()) == 120


@pytest.mark.parametrize("trouble", ["broken", "offline", "unreachable", "unknown"])
def test_a_hub_that_cannot_be_reached_is_one_sentence(hub: Hub, tmp_path: Path, trouble: str) -> None:
    hub.broken = trouble == "broken"
    more = {"offline": {"HF_HUB_OFFLINE": "1"}, "unreachable": {"HF_ENDPOINT": "http://127.0.0.1:9"}}.get(trouble, {})
    began = time.monotonic()
    name = "svamp" if trouble == "unknown" else "gsm8k"
    done = run(hub, tmp_path, name, code=1, **more)
    assert time.monotonic() - began < 20
    assert f"{name.upper() if name == 'svamp' else name} could not be fetched" in done.stderr
    assert "--from DIR" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_what_the_hub_s_cache_holds_can_be_had_offline(hub: Hub, tmp_path: Path) -> None:
    run(hub, tmp_path, "gsm8k")
    hub.broken = True
    done = run(hub, tmp_path, "gsm8k", "--to", str(tmp_path / "other"), HF_HUB_OFFLINE="1")
    assert done.stdout.count("fetched ") == 2


def test_a_wrong_name_is_wrong_usage(hub: Hub, tmp_path: Path) -> None:
    assert "did you mean 'gsm8k'" in run(hub, tmp_path, "gsm8", code=2).stderr
