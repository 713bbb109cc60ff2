"""Figures hold what the records hold, no more and no less, in plot and table."""

import json
from pathlib import Path

from report_toys import FINDINGS, METRICS, SCORES, finding, score
from stillroom.files import write_lines
from stillroom.report.figures import accuracy_figure, accuracy_table, loss_figure
from stillroom.report.readings import layer_figure, lens_figure


def traces(plot: str) -> dict[str, dict[str, list[float]]]:
    return {trace["name"]: trace for trace in json.loads(plot)["data"]}


def test_accuracy_is_ordered_by_steps_with_longer_at_its_end() -> None:
    groups = [score("a", "longer", 0.2, 0.1, 0.3, "10"), score("a", "test", 0.8, 0.7, 0.9, "9"),
              score("a", "test", 0.9, 0.8, 1.0, "2"), score("a", "longer", 0.2, 0.1, 0.3),
              score("a", "train", 1.0, 0.9, 1.0, "2"), score("a", "test", 0.85, 0.8, 0.9)]  # fmt: skip
    figure = accuracy_figure(groups)
    assert traces(figure.plot)["a"]["x"] == [2, 9, 10]
    assert traces(figure.plot)["a"]["y"] == [0.9, 0.8, 0.2]
    assert [row[2:5] for row in figure.rows] == [
        ("longer", "10", 0.2), ("test", "9", 0.8), ("test", "2", 0.9), ("test", "all", 0.85),
    ]  # fmt: skip


def test_seeds_are_told_apart() -> None:
    both = [
        score("a", "test", 0.9, 0.8, 1.0, "2"),
        score("a", "test", 0.7, 0.6, 0.8, "2").model_copy(update={"seed": 1}),
    ]
    assert {"a, seed 0", "a, seed 1"} <= set(traces(accuracy_figure(both).plot))


def test_a_lens_figure_draws_each_value_beside_its_null() -> None:
    grid = [
        finding("value 1 in top 5", 0.1 * layer, 0, 1, 0.05, lens="logit_lens", layer=layer, position=position)
        for layer in (2, 0, 1)
        for position in ("answer", "question end")
    ]
    (figure,) = lens_figure(grid)
    drawn = traces(figure.plot)
    assert list(drawn) == ["value 1", "value 1: null"]
    assert drawn["value 1"]["x"] == [0, 1, 2]
    assert drawn["value 1"]["y"] == [0.0, 0.1, 0.2]
    assert drawn["value 1: null"]["y"] == [0.05] * 3
    assert lens_figure([]) == []


def test_the_weights_table_holds_every_module_and_its_nulls() -> None:
    module = finding("relative difference", 0.5, 0.4, 0.6, 0.1, module="mlp.up_proj")
    (figure,) = layer_figure([*FINDINGS, module])
    assert [row[2:4] for row in figure.rows] == [("all", 0.375), ("mlp.up_proj", 0.5)]
    assert figure.rows[1][-1] == "null: 0.1"
    assert [trace["y"] for trace in traces(figure.plot).values()] == [[0.375]]
    assert layer_figure([]) == []


def test_the_loss_is_drawn_over_updates() -> None:
    figure = loss_figure({"normal": METRICS})
    assert traces(figure.plot)["normal"]["x"] == [1, 2, 4]
    assert [row[:3] for row in figure.rows] == [("normal", 1, 2.0), ("normal", 2, 1.0), ("normal", 4, 0.5)]


def test_the_terminal_s_table_is_the_test_accuracy(tmp_path: Path) -> None:
    write_lines(tmp_path / "scores.jsonl", SCORES)
    assert accuracy_table(tmp_path / "scores.jsonl").splitlines() == [
        "accuracy on test problems by number of steps (%)",
        "                       1     all",
        "majority            10.0    10.0",
        "normal              99.0    99.0",
        "distilled           50.0    50.0",
    ]
