"""A report is written where it is asked, in the form that its file names, and its absence tells what would make it."""

import webbrowser
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stillroom.cli import app
from stillroom.cli.runs import copy
from stillroom.report.provenance import SLOT
from stillroom.store import Stage, Store, Workplace

PLAIN = {"report.html": f"<!doctype html>{SLOT}", "report.md": f"# toy{SLOT}"}


def page(at: Workplace) -> None:
    for name, text in PLAIN.items():
        (at.out / name).write_text(text)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> partial[Result]:
    monkeypatch.setenv("STILLROOM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "500")
    Store(tmp_path / "store").ensure(Stage("report", "report", 1, {"recipe": "toy"}, {}, page))
    return partial(CliRunner().invoke, app)


def failed(done: Result) -> str:
    """What is told of a refusal; the entry point of the package prints it and exits with 2."""
    assert done.exit_code
    return f"{done.exception} {done.output}"


@pytest.mark.parametrize(("name", "begins"), [("r.html", "<!doctype html>"), ("r.md", "# toy")])
def test_the_path_that_is_told_is_that_of_the_file_that_was_written(
    name: str, begins: str, call: partial[Result], tmp_path: Path
) -> None:
    done = call(["report", "toy", "-o", str(tmp_path / name)])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / name}\n"
    assert (tmp_path / name).read_text().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "folder"], "-o folder is a folder; name a file in it"),
        (["-o", "r.pdf"], "-o r.pdf: name a file that ends in .html or .md;"),
        (["-o", "r"], "-o r: name a file that ends in .html or .md;"),
        (["--markdown", "-o", "r.html"], "name a file that ends in .md;"),
    ],
)
def test_what_is_no_report_s_file_is_refused_and_not_written(
    arguments: list[str], words: str, call: partial[Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert words in failed(call(["report", "toy", *arguments]))
    assert not list(tmp_path.glob("r*"))


def test_a_device_is_no_file_whose_name_tells_what_it_holds(call: partial[Result]) -> None:
    assert call(["report", "toy", "-o", "/dev/null"]).stdout == "/dev/null\n"


def test_a_table_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    """Who has the old one open reads it to its end: it is replaced, and not written over."""
    (tmp_path / "grid.csv").write_text("new")
    (tmp_path / "g.csv").write_text("old")
    (tmp_path / "same").hardlink_to(tmp_path / "g.csv")
    copy(tmp_path / "grid.csv", tmp_path / "g.csv")
    assert [(tmp_path / name).read_text() for name in ("g.csv", "same")] == ["new", "old"]


def test_a_run_refuses_such_a_file_before_it_begins(call: partial[Result], tmp_path: Path) -> None:
    told = failed(call(["run", "abacus-small", "-o", str(tmp_path / "r.pdf")]))
    assert "ends in .html or .md or .csv or .tex or .xlsx;" in told
    assert not (tmp_path / "store" / "problems").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "g.csv"], "a table is made of a whole sweep, and this is none: name a .html or .md file"),
        (["-o", "r.html", "--until", "scores"], "this run does not go as far as the report"),
        (["sweep={students.filler.pauses: [2, 3]}", "-o", "g.csv", "--until", "report"], "made of a whole sweep"),
    ],
)
def test_a_run_that_will_not_make_what_it_is_to_write_is_refused_before_it_begins(
    arguments: list[str], words: str, call: partial[Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        raise AssertionError("it began")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stillroom.pipeline.run", run)
    assert words in failed(call(["run", "abacus-small", *arguments]))
    whole = call(["run", "abacus-small", "sweep={students.filler.pauses: [2, 3]}", "-o", "g.csv"])
    assert str(whole.exception) == "it began"


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("abacus-small", "make one with `stillroom run abacus-small`"),
        ("own.yaml", "make one with `stillroom run own.yaml`"),
        ("abacuss", "did you mean 'abacus'?"),
        ("toyy", "did you mean 'toy'?"),
    ],
)
def test_where_a_recipe_has_no_report_that_recipe_is_advised(recipe: str, words: str, call: partial[Result]) -> None:
    told = failed(call(["report", recipe]))
    assert words in told
    assert f"holds no report of {recipe}: " in told


@pytest.mark.parametrize(("opens", "said"), [(True, ""), (False, "no browser was found to open it; open file://")])
def test_no_browser_is_told(opens: bool, said: str, call: partial[Result], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: asked.append(address) or opens)
    done = call(["report", "toy", "--open"])
    assert done.exit_code == 0
    assert asked[0].endswith("report.html")
    assert done.stderr.startswith(said)
    assert bool(done.stderr) == (not opens)
