"""Some hundred hostile inputs of each kind; `python tests/fuzz.py` does ten thousand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.utils import logging

import fuzz

COUNTS = {"recipes": 150, "lines": 300, "models": 60, "prompts": 150, "replies": 300}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    told = logging.get_verbosity()
    with fuzz.scratch_folder() as folder:
        fuzz.MODELS.clear()
        yield folder
        fuzz.MODELS.clear()
    logging.set_verbosity(told)


@pytest.mark.parametrize("subject", fuzz.SUBJECTS)
def test_hostile_input_is_told_in_our_own_words_and_does_nothing(subject: str, scratch: Path) -> None:
    found, faults = fuzz.attack(subject, COUNTS[subject], scratch, seed=1)
    assert not faults, "\n".join(faults)
    assert sum(found.values()) == COUNTS[subject]
    assert len(found) > 1, found  # some inputs are refused, and not all


def test_the_watch_sees_what_no_input_may_do(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "inside").mkdir()
    fuzz.WATCH.inside = tmp_path / "inside"
    try:
        (tmp_path / "inside" / "a").write_text("x")
        (outside / "b").write_text("x")
        exec(compile("pass", str(tmp_path / "inside" / "evil.py"), "exec"))
    finally:
        fuzz.WATCH.inside = None
        seen, fuzz.WATCH.seen[:] = list(fuzz.WATCH.seen), []
    assert len(seen) == 2, seen
    assert seen[0].endswith("/outside/b")
    assert seen[1].endswith("evil.py")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + last] * 9)}]\n" for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "aliases .* write out to"),
        ("a: &a [*a]\n", "inside of what it names"),
        ("seeds: [2001-99-99]\n", "not valid YAML"),
        ("seeds: " + "[" * 3000 + "]" * 3000 + "\n", "not valid YAML"),
        ("task: !!python/object/apply:os.system [touch ran]\n", "not valid YAML"),
        ("seeds: [" + "9" * 5000 + "]\n", "not valid YAML"),
    ],
)
def test_recipes_that_would_fill_memory_or_run_something_are_refused(text: str, told: str, tmp_path: Path) -> None:
    from stillroom.errors import ConfigError
    from stillroom.recipes import load_recipe

    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_recipe(str(tmp_path / "r.yaml"), [])
