"""A grid in words, tables and a figure: where each student stands on every axis, and what the axes do."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go

from stillroom.files import read_lines
from stillroom.records import Effect, GridRow, Score
from stillroom.report.figures import MAJORITY, Figure, curve, finished, interval

AXES = ("student", "teacher", "level", "format", "base", "rest")
SLOPE, CURVATURE, COARSEST, FINEST = "slope", "curvature", "slope at the coarsest", "slope at the finest"
QUESTIONS = {
    "granularity": "How does accuracy change with granularity?",
    "format": "Does the format matter?",
    "teacher": "Does the teacher matter?",
    "strength": "Does a stronger student gain more from finer rationales?",
}
SAME = "no problem tells these students apart"
LINES = 12
"""Lines that one figure of granularity can hold."""
NOTHING = "The grid does not ask this."


class Told(NamedTuple):
    """One of the study's findings, asked of this grid."""

    question: str
    answers: tuple[str, ...]
    effects: tuple[Effect, ...]


def findings(effects: Sequence[Effect]) -> list[Told]:
    """Every question with what the intervals allow to say. An interval that holds 0 establishes nothing."""
    tell = {"granularity": trends, "format": formats, "teacher": differences, "strength": strengths}
    found = []
    for name, question in QUESTIONS.items():
        mine = tuple(effect for effect in effects if effect.question == name)
        found.append(Told(question, tuple(tell[name](mine)) or (NOTHING,), mine))
    return found


def sign(effect: Effect | None) -> int:
    """1 or −1 where the interval lies on one side of 0, else 0."""
    return 0 if effect is None else (effect.low > 0) - (effect.high < 0)


def points(effect: Effect) -> str:
    return f"{100 * effect.value:+.1f} [{100 * effect.low:+.1f}, {100 * effect.high:+.1f}]"


def empty(effect: Effect) -> bool:
    """Whether no problem tells the students apart: an interval without width is no measurement of their likeness."""
    return effect.value == effect.low == effect.high == 0


def shape(contrasts: dict[str, Effect]) -> str:
    """Which trend is established: a hump or valley by the parabola's slopes at both ends, else the line's."""
    ends = (sign(contrasts.get(COARSEST)), sign(contrasts.get(FINEST)))
    if ends in ((1, -1), (-1, 1)):
        return "not monotone: a hump" if ends[0] > 0 else "not monotone: a valley"
    line = {1: "finer is better", -1: "finer is worse", 0: "no slope is established"}[sign(contrasts[SLOPE])]
    bent = sign(contrasts.get(CURVATURE))
    return line + ("" if not bent else ", and the trend is bent" + (" upward" if bent > 0 else " downward"))


def trends(effects: Sequence[Effect]) -> Iterator[str]:
    """What the levels do to each subject, a sentence each: slope, curvature, ends, and which trend is established."""
    for subject, contrasts in _by_subject(effects).items():
        if empty(contrasts[SLOPE]):
            yield f"{subject}: {SAME}."
            continue
        told = [f"{points(contrasts[SLOPE])} points a level"]
        if CURVATURE in contrasts:
            told.append(f"curvature {points(contrasts[CURVATURE])}")
            told.append(
                f"at the coarsest level {points(contrasts[COARSEST])}, at the finest {points(contrasts[FINEST])}"
            )
        yield f"{subject}: {shape(contrasts)} ({'; '.join(told)})."


def formats(effects: Sequence[Effect]) -> Iterator[str]:
    yield from differences(effects)
    if any(not empty(effect) for effect in effects):
        most = max(max(abs(effect.low), abs(effect.high)) for effect in effects)
        apart = sum(sign(effect) != 0 for effect in effects)
        yield (
            f"{apart} of {len(effects)} intervals leave 0 out; by all of them together no format is more than "
            f"{100 * most:.1f} points from its reference."
        )


def differences(effects: Sequence[Effect]) -> Iterator[str]:
    words = {1: "better", -1: "worse", 0: "no difference is established"}
    for effect in effects:
        said = SAME if empty(effect) else f"{points(effect)} points, {words[sign(effect)]}"
        yield f"{effect.subject}: {effect.contrast}: {said}."


def strengths(effects: Sequence[Effect]) -> Iterator[str]:
    words = {1: "the stronger gains more", -1: "the stronger gains less", 0: "no difference is established"}
    for effect in effects:
        if empty(effect):
            yield f"{effect.subject}: {effect.contrast}: {SAME}."
        elif effect.contrast.startswith(SLOPE):
            yield f"{effect.subject}: {effect.contrast}: {points(effect)} points a level, {words[sign(effect)]}."
        else:
            yield f"{effect.subject}: {effect.contrast}: {points(effect)}."


def _by_subject(effects: Sequence[Effect]) -> dict[str, dict[str, Effect]]:
    found: dict[str, dict[str, Effect]] = {}
    for effect in effects:
        found.setdefault(effect.subject, {})[effect.contrast] = effect
    return found


def grid_columns(rows: Sequence[GridRow]) -> tuple[str, ...]:
    """The axes on which any student has a value, then what was measured."""
    axes = [axis for axis in AXES if any(getattr(row, axis) not in ("", None) for row in rows)]
    return (*axes, "seeds", "n", "accuracy", "sd", "low", "high")


def grid_cells(rows: Sequence[GridRow]) -> list[tuple[Any, ...]]:
    """The grid as rows of plain values, in the order of `grid_columns`; an axis without a value is empty."""
    columns = grid_columns(rows)
    values = [{**row.model_dump(), "seeds": " ".join(map(str, row.seeds)), "accuracy": row.value} for row in rows]
    return [tuple("" if row[column] is None else row[column] for column in columns) for row in values]


def grid_text(folder: Path) -> str:
    """The table and the findings of a comparison's folder, as plain text for a terminal."""
    rows = [*read_lines(folder / "grid.jsonl", GridRow), *_baselines(folder)]
    axes = grid_columns(rows)[:-6]
    several = any(len(row.seeds) > 1 for row in rows)
    table = [(*axes, "n", "accuracy %", "95 % interval", *(("sd", "seeds") if several else ()))]
    for row in rows:
        told = ["–" if getattr(row, axis) in ("", None) else str(getattr(row, axis)) for axis in axes]
        shares = [str(row.n), f"{100 * row.value:.1f}", f"{100 * row.low:.1f} to {100 * row.high:.1f}"]
        table.append((*told, *shares, *((f"{100 * row.sd:.1f}", str(len(row.seeds))) if several else ())))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    asked = [one for one in findings(read_lines(folder / "effects.jsonl", Effect)) if one.effects]
    for one in asked:
        lines += ["", one.question, *(f"  {answer}" for answer in one.answers)]
    return "\n".join(lines)


def _baselines(folder: Path) -> list[GridRow]:
    """What always giving the most frequent training answer would score: the table's null."""
    found = [s for s in read_lines(folder / "scores.jsonl", Score) if s.student.startswith(MAJORITY)]
    return [
        GridRow(student=s.student, seeds=(s.seed,), n=s.n, value=s.value, sd=0.0, low=s.low, high=s.high)
        for s in found
        if (s.metric, s.group) == ("accuracy", "all")
    ]


def granularity_figure(rows: Sequence[GridRow]) -> list[Figure]:
    """Accuracy against level, a line for every student that was taught at several."""
    lines: dict[tuple[str, ...], list[GridRow]] = {}
    for row in rows:
        if row.level is not None:
            lines.setdefault((row.student, row.teacher, row.format, row.base, row.rest), []).append(row)
    plot = go.Figure()
    shown = {name: sorted(line, key=lambda row: row.level or 0) for name, line in lines.items() if len(line) > 1}
    if not shown:
        return []
    if len(shown) > LINES:
        _together(plot, shown)
        drawn = (
            f"The {len(shown)} lines are drawn as one a student: the mean over all other axes, its bars from the "
            f"lowest to "
            "the highest; the table has every cell with its 95 % interval. "
        )
    else:
        _apart(plot, shown)
        drawn = (
            "Greedy answers to all test problems, with 95 % intervals: Wilson's for one seed, over several the "
            "bootstrap "
            "of each problem's mean. "
        )
    plot.update_xaxes(title="granularity (1 is the coarsest)", dtick=1)
    plot.update_yaxes(title="accuracy", tickformat=".0%", rangemode="tozero")
    columns, cells = grid_columns(rows), grid_cells(rows)
    return [finished("granularity", "Accuracy by granularity", f"{drawn}Null: a level line.", plot, columns, cells)]


def _apart(plot: go.Figure, shown: Mapping[tuple[str, ...], Sequence[GridRow]]) -> None:
    for index, (name, line) in enumerate(shown.items()):
        plot.add_scatter(
            x=[row.level for row in line],
            y=[row.value for row in line],
            name=", ".join(part for part in name if part),
            error_y=interval(line),
            **curve(index),
        )


def _together(plot: go.Figure, shown: Mapping[tuple[str, ...], Sequence[GridRow]]) -> None:
    by: dict[str, dict[int, list[float]]] = {}
    for (student, *_), line in shown.items():
        for row in line:
            by.setdefault(student, {}).setdefault(row.level or 0, []).append(row.value)
    for index, (student, levels) in enumerate(by.items()):
        middle = {level: sum(values) / len(values) for level, values in sorted(levels.items())}
        bars = {
            "type": "data",
            "symmetric": False,
            "array": [max(levels[level]) - mean for level, mean in middle.items()],
            "arrayminus": [mean - min(levels[level]) for level, mean in middle.items()],
        }
        plot.add_scatter(x=list(middle), y=list(middle.values()), name=student, error_y=bars, **curve(index))
