"""The doors: exit codes, help with an example, listings, and what a machine reads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from nursery import Nursery
from stillroom.cli import app, runs, studio
from stillroom.cli.app import refuse_output
from stillroom.errors import Interrupted, TeacherError, UsageError
from stillroom.store import Manifest
from stillroom.teachers.asking import LocalConfig, model_files
from stillroom.teachers.teaching import check_output

COMMANDS = ("run", "list", "show", "report", "fetch", "schema", "chat", "studio")


def stillroom(*arguments: str, store: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STILLROOM_STORE": str(store), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "stillroom", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def forked(nursery: Nursery, folder: Path, *arguments: str, store: Path | None = None, code: int = 0) -> str:
    """What a call says, from a process that has imported everything."""
    (folder / "log").unlink(missing_ok=True)
    environment = {"STILLROOM_STORE": str(store or folder / "store"), "COLUMNS": "100"}
    ended, told = nursery.run(folder / "log", environment, *arguments), (folder / "log").read_text()
    assert ended == code, told
    return told


def test_importing_the_package_and_helping_load_no_torch() -> None:
    code = "import sys, stillroom, stillroom.cli; assert not {'torch', 'pydantic', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    assert "Example: stillroom" in stillroom(command, "--help", store=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "abacuss"), "did you mean 'abacus'"),
        (("run", "abacus", "fit.updates"), "expected key=value"),
        (("run", "missing.yaml"), "missing.yaml: cannot be read"),
        (("show", "student/none"), "unknown folder"),
        (("report",), "holds no report"),
        (("run",), "Missing argument"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence_with_code_2_and_writes_nothing(
    arguments, words, tmp_path: Path, nursery: Nursery
) -> None:
    told = forked(nursery, tmp_path, *arguments, code=2)
    assert words in told
    assert "Traceback" not in told
    assert not (tmp_path / "store").exists()


def test_a_missing_data_file_is_told_with_code_1(tmp_path: Path, nursery: Nursery) -> None:
    told = forked(nursery, tmp_path, "run", "svamp-recorded", f"data={tmp_path}", code=1)
    assert "svamp_train.jsonl: no such file" in told
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_written_is_told_with_code_1(tmp_path: Path, nursery: Nursery) -> None:
    (tmp_path / "store").write_text("")
    told = forked(nursery, tmp_path, "run", "abacus-small", code=1)
    assert "cannot be written" in told
    assert "Traceback" not in told


def test_dry_run_tells_what_is_reused_and_what_would_run(small_store: Path, tmp_path: Path, nursery: Nursery) -> None:
    def fates(store: Path) -> set[str]:
        lines = forked(nursery, tmp_path, "run", "abacus-small", "--dry-run", store=store).splitlines()
        return {line.split()[0] for line in lines if not line.startswith("memory of ")}

    assert fates(small_store) == {"reuse"}
    assert fates(tmp_path / "s") == {"run"}
    assert not (tmp_path / "s").exists()


def test_a_second_run_reuses_everything_and_prints_the_table(small_store: Path, tmp_path: Path) -> None:
    done = stillroom("run", "abacus-small", "settings.device=cpu", "-o", str(tmp_path / "r.html"), store=small_store)
    assert "> " not in done.stderr
    assert done.stdout.splitlines()[0].startswith("accuracy on test problems")
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_list_and_show_read_the_store(small_store: Path) -> None:
    rows = [json.loads(line) for line in stillroom("list", "--json", store=small_store).stdout.splitlines()]
    assert {"base", "normal", "distilled", "filler", "report"} <= {row["name"] for row in rows}
    path = next(row["path"] for row in rows if row["name"] == "normal")
    shown = json.loads(stillroom("show", path[:-4], "--json", store=small_store).stdout)
    assert shown["parents"]["base"]["stage"] == "base"
    assert shown["notes"] == []
    printed = str(small_store / path / "model.safetensors")  # a path as a command prints it
    assert json.loads(stillroom("show", printed, "--json", store=small_store).stdout) == shown


def test_show_names_a_changed_code_version_and_damage(small_store: Path, tmp_path: Path) -> None:
    folder = next(small_store.glob("problems/*"))
    copy = tmp_path / "problems" / folder.name
    copy.mkdir(parents=True)
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    older = manifest.model_copy(update={"code": "0.0.1+00000000"})
    (copy / "manifest.json").write_text(older.model_copy(update={"seal": older.sealed()}).model_dump_json())
    notes = json.loads(stillroom("show", "problems/", "--json", store=tmp_path).stdout)["notes"]
    assert any("is missing" in note for note in notes)
    assert any("made by code 0.0.1+00000000" in note for note in notes)


def test_a_folder_that_is_not_there_is_told_those_of_its_stage_with_their_names() -> None:
    known: Any = {
        f"{stage}/{key}": SimpleNamespace(stage=stage, name=name)
        for stage, key, name in (("student", "3f2a", "normal"), ("student", "77aa", "latent"), ("base", "1f3a", "base"))
    }
    told = runs._none_such("student/3f3", known)
    assert told.startswith("unknown folder 'student/3f3'")
    assert "student/3f2a (normal)" in told
    assert "student/77aa (latent)" in told
    assert "base/" not in told
    assert "known are base/, student/; `stillroom list`" in runs._none_such("pupil/3", known)


def test_scores_do_not_replace_the_questions(tmp_path: Path) -> None:
    asked = tmp_path / "q.jsonl"
    asked.write_text('{"question": "What is 2 + 3?", "answer": "5"}\n')
    done = CliRunner().invoke(app, ["evaluate", "model", "--task", str(asked), "-o", str(asked)])
    assert "is the file that is read" in str(done.exception)


@pytest.mark.parametrize("stop", [Interrupted("what was done is kept"), KeyboardInterrupt()])
def test_a_command_that_keeps_nothing_does_not_say_so_when_it_is_stopped(
    stop: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr("stillroom.pipeline.diffing.opened", stopped)
    done = CliRunner().invoke(app, ["diff", "one", "two"])
    told = done.output + str(done.exception)
    assert "opening one and two" in told
    assert "keeps nothing" in told
    assert "is kept" not in told
    assert done.exit_code == (1 if isinstance(stop, Interrupted) else 130)
    assert hasattr(studio.studio, "__wrapped__")


def test_a_diff_that_could_not_be_written_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[object] = []
    monkeypatch.setattr("stillroom.pipeline.diffing.problems", lambda *_: began.append(1))
    done = CliRunner().invoke(app, ["diff", "one", "two", "-o", str(tmp_path / "nowhere" / "f.parquet")])
    assert "stands in a folder that does not exist" in str(done.exception)
    done = CliRunner().invoke(app, ["diff", "one", "two", "-o", str(tmp_path / "f.csv")])
    assert "ends in .parquet" in str(done.exception)
    assert not began


def test_a_ring_of_links_is_told_in_a_sentence_and_gives_way_to_what_is_written(tmp_path: Path) -> None:
    """`Path.resolve` raises `RuntimeError` of one, which is no sentence."""
    ring = tmp_path / "ring"
    ring.symlink_to(ring)
    refuse_output(ring)
    check_output(ring, ring.with_name("read"))
    with pytest.raises(UsageError, match="stands in a folder that does not exist"):
        refuse_output(ring / "x")
    with pytest.raises(TeacherError, match=r"holds no config\.json"):
        model_files(LocalConfig(name="local", folder=str(ring)))


@pytest.mark.parametrize("words", [["abacuss"], ["abacus", "fit.updates"], ["missing.yaml"]])
def test_a_slip_in_a_run_is_told_before_torch_is_loaded(words: list[str]) -> None:
    code = (
        "import sys\nfrom stillroom.cli import main\nsys.argv[1:] = ['run', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert left.code == 2 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)


def test_the_report_command_loads_no_torch(small_store: Path) -> None:
    code = (
        "import sys\nfrom stillroom.cli import app\n"
        "app(['report'], standalone_mode=False)\nassert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "STILLROOM_STORE": str(small_store)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
