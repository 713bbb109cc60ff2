"""Errors for their reader: the nearest known name first, names cut short, memory that ran out in a sentence."""

import pytest
import torch

from stillroom import cli, errors
from stillroom.errors import StillroomError, unknown


def test_the_nearest_known_name_comes_first_and_all_are_told() -> None:
    told = unknown("lens", "weight", ["probes", "weights", "attention"])
    assert told == "unknown lens 'weight': did you mean 'weights'? known are weights, attention, probes"


def test_of_several_near_names_the_nearest_is_first() -> None:
    told = unknown("lens", "zebrass", ["abacus", "zebra", "zebras"])
    assert told.endswith("did you mean 'zebras'? known are zebras, zebra, abacus")


def test_nothing_is_guessed_where_nothing_is_near() -> None:
    assert unknown("lens", "zzz", ["probes", "attention"]) == "unknown lens 'zzz': known are attention, probes"


@pytest.mark.parametrize(
    "name", ["UsageError", "ConfigError", "DataError", "StoreError", "LeaseLost", "ClusterError", "TrainingError"]
)
def test_every_error_is_of_the_one_tree_and_drawn_in_its_docstring(name: str) -> None:
    assert issubclass(getattr(errors, name), StillroomError)
    assert name in (errors.__doc__ or "")


def test_a_name_that_is_a_page_long_is_cut() -> None:
    told = unknown("student", "s" * 5000, ["s" * 5001, "normal"])
    assert told == f"unknown student '{'s' * 100}…': did you mean '{'s' * 100}…'? known are {'s' * 100}…, normal"


@pytest.mark.parametrize("asked", [lambda: torch.empty(10**15), lambda: bytearray(10**15)], ids=["torch", "python"])
def test_memory_that_is_not_there_is_told_in_a_sentence(asked, monkeypatch, capsys) -> None:
    monkeypatch.setattr(cli, "app", asked)
    assert cli.status() == 1
    assert capsys.readouterr().err.startswith("stillroom: memory ran out (")


def test_any_other_fault_keeps_its_traceback(monkeypatch) -> None:
    monkeypatch.setattr(cli, "app", lambda: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        cli.status()
