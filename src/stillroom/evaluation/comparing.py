"""The cells of a sweep side by side: the same student in two cells, on the test problems that both were asked."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from stillroom import stats
from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.evaluation import grouped_rows, paired
from stillroom.files import read_lines, write_lines
from stillroom.records import Comparison, Problem, Score, Verdict
from stillroom.store import Workplace
from stillroom.tasks import TEST

VERSION = 1


class ComparisonConfig(Config):
    cells: tuple[str, ...]
    """What each differs in; its parents are `scores CELL` and `problems CELL`."""


def make_comparison(config: ComparisonConfig, at: Workplace) -> None:
    """Stage `comparison`: all test scores, and exact paired tests between cells with Holm's correction over them all.

    Raises `DataError` when the cells were tested on different problems.
    """
    scores = [score for cell in config.cells for score in _scores(at.parents[f"scores {cell}"], cell)]
    asked = {cell: read_lines(at.parents[f"problems {cell}"] / f"{TEST}.jsonl", Problem) for cell in config.cells}
    first = asked[config.cells[0]]
    for cell, problems in asked.items():
        if [p.id for p in problems] != [p.id for p in first]:
            raise DataError(
                f"sweep: {cell!r} is tested on other problems than {config.cells[0]!r}: compare their reports"
            )
    found = [
        comparison
        for a, b in combinations(config.cells, 2)
        for comparison in _compare(a, b, at.parents[f"scores {a}"], at.parents[f"scores {b}"], first)
    ]
    corrected = stats.holm([comparison.p for comparison in found])
    write_lines(at.out / "scores.jsonl", scores)
    write_lines(
        at.out / "comparisons.jsonl",
        [c.model_copy(update={"holm": p}) for c, p in zip(found, corrected, strict=True)],
    )


def _scores(folder: Path, cell: str) -> list[Score]:
    rows = [score for score in read_lines(folder / "scores.jsonl", Score) if score.split == TEST]
    return [score.model_copy(update={"student": f"{score.student} [{cell}]"}) for score in rows]


def _compare(a: str, b: str, left: Path, right: Path, problems: list[Problem]) -> Iterator[Comparison]:
    """Every student that both cells hold, by number of steps."""
    for folder in sorted(path for path in left.iterdir() if (path / f"{TEST}.jsonl").exists()):
        other = right / folder.name
        if not other.exists():
            continue
        name, _, seed = folder.name.partition("@")
        verdicts = [np.array([v.correct for v in read_lines(f / f"{TEST}.jsonl", Verdict)]) for f in (folder, other)]
        for group, rows in grouped_rows(problems).items():
            one, two = (correct[rows] for correct in verdicts)
            yield paired(f"{name} [{a}]", f"{name} [{b}]", int(seed or 0), TEST, group, one, two)
