"""Lenses in pictures: a section for every lens, colour where a value lies outside its nulls, the ledger of truth."""

import json
from typing import Any

import pytest

from report_toys import finding
from stillroom.records import Finding, Null
from stillroom.report.figures import Figure
from stillroom.report.lenses import POINTS, lens_parts
from stillroom.report.maps import ROWS, Map, beyond, lens_map
from stillroom.report.truth import ledger_figures

MOVED = "answer moved"


def plot(figure: Figure) -> dict[str, Any]:
    return json.loads(figure.plot)


def patch(layer: int, position: str, value: float, **address: object) -> Finding:
    at = {"lens": "patching", "layer": layer, "position": position, "module": "residual", "reference": "", **address}
    return finding(MOVED, value, value - 0.1, value + 0.1, 0.1, **at)


@pytest.mark.parametrize(
    ("value", "low", "high", "outside"),
    [(0.9, 0.8, 1.0, 0.8), (0.2, 0.1, 0.3, 0.0), (-0.5, -0.6, -0.4, -0.6), (0.3, 0.15, 0.4, 0.0)],
)
def test_what_lies_outside_its_nulls_is_told_by_interval(value, low, high, outside) -> None:
    assert beyond(finding("m", value, low, high, 0.1)) == pytest.approx(outside)


def test_a_finding_without_a_null_establishes_nothing() -> None:
    assert beyond(finding("m", 0.9, 0.8, 1.0, 0.1).model_copy(update={"nulls": ()})) == 0


def test_not_to_be_0_as_beside_itself_establishes_nothing() -> None:
    itself = Null(name="self-diff", value=0.0, low=0.0, high=0.0)
    far = finding("divergence (nats)", 0.9, 0.8, 1.0, 0.1)
    assert beyond(far.model_copy(update={"nulls": (itself,)})) == 0
    assert beyond(far.model_copy(update={"nulls": (itself, *far.nulls)})) == beyond(far) > 0


@pytest.mark.parametrize(("adjusted", "outside"), [(0.049, 0.8), (0.05, 0.0)])
def test_a_cell_pays_for_the_size_of_its_grid(adjusted: float, outside: float) -> None:
    one = finding("m", 0.9, 0.8, 1.0, 0.1).model_copy(update={"p": 0.01, "adjusted": adjusted})
    assert beyond(one) == pytest.approx(outside)


def test_a_map_holds_each_number_at_its_place_and_colours_what_is_established() -> None:
    rows = [patch(0, "answer", 0.9), patch(1, "answer", 0.15), patch(0, "number 1", 0.5)]
    (figure,) = lens_map("patching", Map(MOVED, row="position", module="residual"), rows)
    (trace,) = plot(figure)["data"]
    assert (trace["x"], trace["y"]) == (["layer 0", "layer 1"], ["distilled, answer", "distilled, number 1"])
    assert trace["text"] == [["0.90", "0.15"], ["0.50", ""]]
    assert trace["z"][0] == [pytest.approx(0.8), 0.0]
    assert trace["z"][1][1] is None
    assert "null" in figure.caption


def test_a_large_map_shows_of_each_model_the_rows_with_the_largest_numbers_and_its_table_all() -> None:
    names = ("one", "two")
    rows = [patch(0, f"place {i}", i / 100, subject=name) for name in names for i in range(ROWS)]
    (figure,) = lens_map("patching", Map(MOVED, row="position"), rows)
    kept = plot(figure)["data"][0]["y"]
    assert len(kept) == ROWS
    assert "one, place 47" in kept
    assert "one, place 0" not in kept
    assert f"{ROWS} of {2 * ROWS} rows" in figure.caption


def test_every_lens_has_a_section_even_one_that_no_table_names() -> None:
    mine = finding("charm, chosen on validation", 0.5, 0.4, 0.6, 0.1, lens="mine")
    broken = mine.model_copy(update={"invalid": "too few problems"})
    parts = list(lens_parts([("lens mine", [mine, broken]), ("lens empty", [])]))
    assert [part.anchor for part in parts] == ["lens-mine", "lens-empty"]
    dots, every = parts[0].figures
    measured = plot(dots)["data"][-1]
    assert (measured["name"], measured["x"]) == ("measured", [0.5])
    assert plot(dots)["data"][0]["x"] == [0.1]
    assert [row[-1] for row in every.rows] == ["", "too few problems"]
    assert "1 of 2 findings are no measurement" in parts[0].notes[0]
    assert (parts[1].figures, len(parts[1].notes)) == ([], 1)


def test_the_seeds_of_a_lens_share_a_section_that_names_both_folders() -> None:
    rows = [patch(0, "answer", 0.5)]
    (part,) = lens_parts([("lens patching@0", rows), ("lens patching@1", rows)])
    assert {figure.made_of for figure in part.figures} == {("lens patching@0", "lens patching@1")}


def test_many_dots_are_cut_and_say_so() -> None:
    rows = [
        finding("charm, chosen on validation", 0.5, 0.4, 0.6, 0.1, lens="mine", position=f"p{i}") for i in range(60)
    ]
    (part,) = lens_parts([("lens mine", rows)])
    assert len(part.figures[0].rows) == POINTS
    assert f"The first {POINTS} of 60" in part.figures[0].caption
    assert len(part.figures[1].rows) == 60


def test_the_ledger_draws_each_lens_beside_its_strongest_null() -> None:
    told = finding("value 1 AUROC, chosen on validation", 0.9, 0.8, 0.95, 0.5, lens="probes")
    told = told.model_copy(update={"nulls": (*told.nulls, Null(name="base", value=0.7, low=0.6, high=0.8))})
    beats = finding("value 1 top-1, chosen on validation", 0.4, 0.3, 0.5, 0.1, lens="probes")
    table, figure = ledger_figures([told, beats], ["lens probes"])
    assert (len(table.rows), table.made_of) == (1, ("lens probes",))
    measured, null = plot(figure)["data"]
    assert (measured["x"], measured["y"]) == ([0.9], ["distilled, value 1"])
    assert null["x"] == [0.7]
    assert len(figure.rows) == 2
    assert ledger_figures([], []) == []
