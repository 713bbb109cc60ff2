"""What a plan says that it needs."""

from dataclasses import replace
from pathlib import Path

import pytest

import toys
from stillroom import pipeline, students
from stillroom.files import write_json, write_lines
from stillroom.pipeline.needs import size_told, told
from stillroom.recipes import load_recipe
from stillroom.records import Lesson
from stillroom.store import Store
from stillroom.students.sft import encode


@pytest.mark.parametrize(
    ("size", "words"),
    [(2_010_000_000, "2.01 GB"), (3_400_000, "3.4 MB"), (999_000, "999 kB"), (12, "12 B"), (0, "0 B")],
)
def test_a_size_has_a_unit_of_its_own(size: int, words: str) -> None:
    assert size_told(size) == words


def test_lengths_that_are_not_known_are_said_to_be_a_bound_or_a_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)

    def needed(*overrides: str) -> str:
        plan = pipeline.plan("abacus-small", load_recipe("abacus-small", [*overrides]))
        (one,) = [stage for stage in plan if stage.stage == "student" and stage.name == "normal"]
        if counted:
            folder = store.folder(one.stage, one.key)
            folder.mkdir(parents=True)
            write_json(folder / "tokens.json", {"prompt": {"longest": 20}, "completion": {"longest": 30}})
        return told(one, store)

    counted = False
    assert "tokens (at most: lengths are not known yet)" in needed()
    assert "512 tokens (a guess: lengths are not known yet)" in needed("base.scratch.positions=2048")
    monkeypatch.setattr(Store, "find", lambda _, stage: tmp_path / stage.stage)
    one = Lesson(problem="p", prompt="Ann has 3 eggs.", completion="The answer is 3.")
    asked = toys.student()
    students.save(asked, tmp_path / "base")
    (tmp_path / "lessons").mkdir()
    write_lines(tmp_path / "lessons" / "lessons.jsonl", [one])
    (example,) = encode([one], asked)
    assert f"rows of {example.length} tokens in float32" in needed()
    counted = True
    assert "rows of 50 tokens in float32" in needed()


def test_recomputing_saves_nothing_where_a_student_thinks(tmp_path: Path) -> None:
    plan = pipeline.plan("abacus-small", load_recipe("abacus-small", []))
    taught = {stage.name: stage for stage in plan if stage.stage == "student"}
    saved = {}
    for name in ("normal", "latent"):
        stage = taught[name]
        spared = replace(stage, config=stage.config | {"checkpointing": True})
        saved[name] = told(stage, Store(tmp_path)) != told(spared, Store(tmp_path))
    assert saved == {"normal": True, "latent": False}
