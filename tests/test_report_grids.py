"""A grid in words and tables: what the intervals allow to say and no more, and files that others can read."""

import csv
import json
from pathlib import Path

import openpyxl
import pytest

from report_toys import sweep_house
from stillroom.files import read_lines, write_lines
from stillroom.records import Comparison, Effect, GridRow, Score
from stillroom.report.exports import export, spreadsheet, tables
from stillroom.report.grids import findings, granularity_figure, grid_text, shape
from stillroom.report.overview import accuracy

ROWS = [
    GridRow(student="base", base="small", seeds=(0,), n=300, value=0.01, sd=0.0, low=0.0, high=0.03),
    GridRow(student="normal", teacher="chatgpt", level=1, format="plain", base="small", seeds=(0, 3), n=300, value=0.25,
            sd=0.02, low=0.2, high=0.3),
    GridRow(student="normal", teacher="chatgpt", level=2, format="plain", base="small", seeds=(0, 3), n=300, value=0.5,
            sd=0.01, low=0.45, high=0.55),
]  # fmt: skip
COMPARISON = Comparison(
    a="normal [granularity=1 scratch=small]", b="=cmd() & 100%_#", seed=3, split="test", group="all", n=300, only_a=2,
    only_b=9, difference=-0.0233, low=-0.05, high=0.01, p=0.0654, holm=0.13,
)  # fmt: skip


def effect(contrast: str, value: float, low: float, high: float, question: str = "granularity") -> Effect:
    told = {"subject": "normal, small", "n": 300, "seeds": 2}
    return Effect(question=question, contrast=contrast, value=value, low=low, high=high, **told)


SLOPE = effect("slope", 0.25, 0.2, 0.3)
UP, DOWN, FLAT = (0.1, 0.05, 0.15), (-0.1, -0.15, -0.05), (0.01, -0.05, 0.07)


@pytest.mark.parametrize(
    ("slope", "curvature", "coarsest", "finest", "told"),
    [
        (FLAT, DOWN, UP, DOWN, "not monotone: a hump"),
        (FLAT, UP, DOWN, UP, "not monotone: a valley"),
        (UP, FLAT, UP, UP, "finer is better"),
        (DOWN, FLAT, FLAT, DOWN, "finer is worse"),
        (UP, DOWN, UP, FLAT, "finer is better, and the trend is bent downward"),
        (FLAT, FLAT, UP, FLAT, "no slope is established"),
    ],
)
def test_a_shape_is_named_only_where_the_intervals_leave_0_out(slope, curvature, coarsest, finest, told) -> None:
    names = ("slope", "curvature", "slope at the coarsest", "slope at the finest")
    contrasts = {n: effect(n, *values) for n, values in zip(names, (slope, curvature, coarsest, finest), strict=True)}
    assert shape(contrasts) == told


def test_two_levels_have_a_slope_and_no_curve() -> None:
    assert shape({"slope": SLOPE}) == "finer is better"
    assert findings([SLOPE])[0].answers == ("normal, small: finer is better (+25.0 [+20.0, +30.0] points a level).",)


def test_students_that_no_problem_tells_apart_are_not_called_alike() -> None:
    same = effect("symbolic − plain", 0, 0, 0, "format")
    assert findings([same])[1].answers == ("normal, small: symbolic − plain: no problem tells these students apart.",)
    assert findings([])[2].answers == ("The grid does not ask this.",)


def test_formats_are_bounded_by_the_farthest_end_of_all_their_intervals() -> None:
    told = findings(
        [effect("a − plain", 0.02, -0.01, 0.05, "format"), effect("b − plain", -0.04, -0.07, -0.01, "format")]
    )
    assert told[1].answers[-1].startswith("1 of 2 intervals leave 0 out")
    assert "no format is more than 7.0 points from its reference" in told[1].answers[-1]


def test_the_terminal_s_table_has_intervals_the_null_and_only_axes_with_values(tmp_path: Path) -> None:
    told = {"split": "test", "group": "all", "metric": "accuracy"}
    majority = Score(student="majority", seed=0, value=0.04, n=300, low=0.02, high=0.07, **told)
    for name, rows in (("grid", ROWS), ("effects", [SLOPE]), ("scores", [majority])):
        write_lines(tmp_path / f"{name}.jsonl", rows)
    lines = grid_text(tmp_path).splitlines()
    assert lines[0].split("  ")[0] == "student"
    assert "rest" not in lines[0]
    assert lines[2].split() == [
        "normal", "chatgpt", "1", "plain", "small", "300", "25.0", "20.0", "to", "30.0", "2.0", "2",
    ]  # fmt: skip
    assert lines[4].split() == ["majority", "–", "–", "–", "–", "300", "4.0", "2.0", "to", "7.0", "0.0", "1"]
    assert lines[6:] == [
        "How does accuracy change with granularity?",
        "  normal, small: finer is better (+25.0 [+20.0, +30.0] points a level).",
    ]


def test_the_figure_has_a_line_for_what_was_taught_at_several_levels() -> None:
    (figure,) = granularity_figure(ROWS)
    assert '"x":[1,2]' in figure.plot
    assert '"y":[0.25,0.5]' in figure.plot
    assert granularity_figure(ROWS[:2]) == []


def test_the_tables_come_back_from_csv_and_from_the_spreadsheet(tmp_path: Path) -> None:
    export(tables(ROWS, [COMPARISON], [SLOPE]), tmp_path)
    with (tmp_path / "grid.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [0.01, 0.25, 0.5]
    assert [row["level"] for row in rows] == ["", "1", "2"]
    book = openpyxl.load_workbook(tmp_path / "grid.xlsx")
    assert book.sheetnames == ["grid", "comparisons", "effects"]
    assert [cell.value for cell in book["grid"][1]][:3] == ["student", "teacher", "level"]
    assert [row[book["grid"].max_column - 5].value for row in book["grid"].iter_rows(min_row=2)] == [300, 300, 300]
    told = book["comparisons"].cell(2, 2)
    assert (told.value, told.data_type) == ("=cmd() & 100%_#", "s")  # text, never a formula


def test_latex_escapes_what_it_must_and_shows_shares_in_percent(tmp_path: Path) -> None:
    export(tables(ROWS, [COMPARISON], [SLOPE]), tmp_path)
    lines = (tmp_path / "comparisons.tex").read_text().splitlines()
    names = r"normal [granularity=1 scratch=small] & =cmd() \& 100\%\_\#"
    assert lines[4] == names + r" & 3 & 300 & 2 & 9 & -2.3 & -5.0 & 1.0 & 0.0654 & 0.13 \\"
    assert lines[0] == r"\begin{tabular}{llrrrrrrrrr}"
    assert lines[-1] == r"\end{tabular}"


def test_the_same_tables_give_the_same_bytes_whenever_they_are_written(monkeypatch) -> None:
    found = tables(ROWS, [COMPARISON], [SLOPE])
    first = spreadsheet(found)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert spreadsheet(found) == first


def test_a_thousand_students_are_folded_by_name_and_their_lines_by_student(tmp_path: Path) -> None:
    folder = sweep_house(tmp_path, 1000)["comparison"]
    figure = accuracy(read_lines(folder / "scores.jsonl", Score))
    assert len(json.loads(figure.plot)["data"]) == 2
    assert len(figure.rows) == 1001
    assert "One point for each of 1001 students" in figure.caption
    (lines,) = granularity_figure(read_lines(folder / "grid.jsonl", GridRow))
    (line,) = json.loads(lines.plot)["data"]
    assert (line["name"], line["x"]) == ("normal", [1, 2, 3, 4, 5, 6])
    assert len(lines.rows) == 1000


def test_few_students_have_a_row_each() -> None:
    told = {"split": "test", "group": "all", "metric": "accuracy", "n": 9, "low": 0.1, "high": 0.9, "seed": 0}
    figure = accuracy([Score(student=f"normal [{i}]", value=0.5, **told) for i in range(3)])
    assert json.loads(figure.plot)["data"][0]["y"] == ["normal [0]", "normal [1]", "normal [2]"]
