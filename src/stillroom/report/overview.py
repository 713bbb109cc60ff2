"""The page of a sweep: where every student stands, what the axes do, and how students compare on the same problems.

Up to `FOLDED` students each have a row of their own; beyond that a row is all students of one name, a point a student,
and the table under the figure holds each.
"""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from stillroom.config import Config
from stillroom.files import read_lines, write_atomic
from stillroom.records import Comparison, Effect, Finding, GridRow, Score
from stillroom.report.exports import export, tables
from stillroom.report.figures import COLOURS, MAJORITY, MARKERS, Figure, finished, interval
from stillroom.report.grids import findings, granularity_figure
from stillroom.report.pages import library, remakes, template
from stillroom.report.provenance import SLOT, rows
from stillroom.report.sizes import size_figures
from stillroom.report.suits import suited
from stillroom.store import Workplace

FOLDED = 60


class OverviewConfig(Config):
    recipe: str


def make_overview(config: OverviewConfig, at: Workplace) -> None:
    """Stage `report` of a sweep: `report.html`, `report.md`, and its tables as CSV, LaTeX and `grid.xlsx`."""
    folder = at.parents["comparison"]
    grid = read_lines(folder / "grid.jsonl", GridRow)
    comparisons = read_lines(folder / "comparisons.jsonl", Comparison)
    effects = read_lines(folder / "effects.jsonl", Effect)
    scores = read_lines(folder / "scores.jsonl", Score)
    made = ("comparison",)
    figures = [f._replace(made_of=made) for f in (accuracy(scores), *granularity_figure(grid))]
    if "sizes" in at.parents:
        sizes = read_lines(at.parents["sizes"] / "findings.jsonl", Finding)
        figures += [f._replace(made_of=("sizes",)) for f in size_figures(sizes)]
    told = findings(effects)
    asked = {one.question: _effects(place, one.question, one.effects) for place, one in enumerate(told, 1)}
    paired = _paired(comparisons)._replace(made_of=made)
    told_of = {
        "recipe": config.recipe,
        "figures": figures,
        "findings": told,
        "suited": suited(grid, effects, scores),
        "effects": asked,
        "paired": paired,
        "provenance": rows(at.parents),
        "remakes": remakes(config.recipe, [*figures, paired], at.parents),
        "slot": SLOT,
    }
    write_atomic(at.out / "report.html", template("overview.html").render(told_of, plotly=library()))
    write_atomic(at.out / "report.md", template("overview.md").render(told_of))
    export(tables(grid, comparisons, effects), at.out)


def accuracy(scores: list[Score]) -> Figure:
    """Test accuracy of every student and cell; the name of a score is `STUDENT [CELL]`."""
    rows = [s for s in scores if s.metric == "accuracy" and s.group == "all" and s.split == "test"]
    several = len({s.seed for s in rows if not s.student.startswith(MAJORITY)}) > 1
    names = [f"{s.student}, seed {s.seed}" if several else s.student for s in rows]
    folded = len(rows) > FOLDED
    plot = _folded(rows) if folded else _each(dict(zip(names, rows, strict=True)))
    plot.update_xaxes(title="accuracy", tickformat=".0%", rangemode="tozero")
    plot.update_yaxes(autorange="reversed", automargin=True)
    drawn = len({_plain(s.student) for s in rows}) if folded else len(rows)
    shown = (
        f"One point for each of {len(rows)} students, those of one name in one row with their quartiles; the table has "
        "every one with its 95 % Wilson interval."
        if folded
        else "Greedy answers to all test problems, with 95 % Wilson intervals."
    )
    return finished(
        "accuracy",
        "Accuracy of every student in every cell",
        f"{shown} Null: `majority` always gives the most frequent training answer.",
        plot,
        ("student", "seed", "accuracy", "low", "high", "n"),
        [(s.student, s.seed, s.value, s.low, s.high, s.n) for s in rows],
        height=140 + (70 if folded else 22) * drawn,
    )


def _plain(name: str) -> str:
    """`normal [fit=2]` → `normal`."""
    return name.partition(" [")[0]


def _each(rows: Mapping[str, Score]) -> go.Figure:
    plot = go.Figure()
    for index, majority in enumerate((False, True)):
        shown = {name: s for name, s in rows.items() if s.student.startswith(MAJORITY) == majority}
        plot.add_scatter(
            x=[s.value for s in shown.values()],
            y=list(shown),
            name="the null" if majority else "students",
            error_x=interval(list(shown.values())),
            mode="markers",
            marker={"symbol": ("circle", "x")[index], "size": 10, "color": COLOURS[6 if majority else 0]},
        )
    return plot


def _folded(rows: Sequence[Score]) -> go.Figure:
    by: dict[str, list[Score]] = {}
    for s in rows:
        by.setdefault(_plain(s.student), []).append(s)
    plot = go.Figure()
    for index, (name, mine) in enumerate(by.items()):
        look = {
            "symbol": MARKERS[index % len(MARKERS)],
            "color": COLOURS[index % len(COLOURS)],
            "size": 5,
            "opacity": 0.6,
        }
        plot.add_box(
            x=[s.value for s in mine], y=[name] * len(mine), text=[s.student for s in mine], name=name, boxpoints="all",
            jitter=0.7, pointpos=0, marker=look, orientation="h", fillcolor="rgba(128,128,128,0.15)", showlegend=False,
        )  # fmt: skip
    return plot


def _paired(comparisons: Sequence[Comparison]) -> Figure:
    columns = ("A", "B", "seed", "n", "A − B (points)", "low", "high", "only A", "only B", "p", "p (Holm)")
    return Figure(
        "paired",
        "Students that differ in one thing, on the same test problems",
        "Difference of accuracy in points with its paired bootstrap interval, the problems that one alone solved, "
        "the exact "
        "two-sided p of McNemar's test and the same after Holm's correction over all rows. Null: a difference of 0.",
        "",
        columns,
        [
            (
                c.a, c.b, c.seed, c.n, 100 * c.difference, 100 * c.low, 100 * c.high, c.only_a, c.only_b, c.p, c.holm,
            )
            for c in comparisons
        ],
    )  # fmt: skip


def _effects(place: int, question: str, effects: Sequence[Effect]) -> Figure:
    return Figure(
        f"effects-{place}",
        question,
        "In points of accuracy, with paired 95 % bootstrap intervals over the test problems. Null: 0.",
        "",
        ("of", "what", "points", "low", "high", "problems", "seeds"),
        [(e.subject, e.contrast, 100 * e.value, 100 * e.low, 100 * e.high, e.n, e.seeds) for e in effects],
    )
