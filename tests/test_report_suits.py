"""What suits whom is said by paired intervals; one experiment alone establishes nothing."""

import re

import pytest

from report_toys import SCORES, finding
from stillroom.recipes import load_recipe
from stillroom.records import Effect, GridRow
from stillroom.report.evidence import Evidence
from stillroom.report.suits import SWEEPS, UNVARIED, suited, suits
from stillroom.teachers import TEACHERS

WRITTEN = {"cell": ["toy", "worked", "plain", 3], "n": 20, "words": [7.0, 6.5, 7.5]}
TOLD = {"student": "normal", "teacher": "gemini", "base": "small", "seeds": (0,), "n": 300, "sd": 0.0}
GRID = [
    GridRow(**TOLD, level=level, format="plain", value=value, low=value - 0.05, high=value + 0.05)
    for level, value in ((1, 0.3), (2, 0.5))
]


def effect(
    question: str, contrast: str, low: float, high: float, subject: str = "normal, gemini, plain, small"
) -> Effect:
    told = {"question": question, "subject": subject, "contrast": contrast, "n": 300, "seeds": 1}
    return Effect(**told, value=(low + high) / 2, low=low, high=high)


def test_the_sweep_of_teachers_that_is_named_is_one_that_can_be_run() -> None:
    (recipe,) = re.findall(r"`stillroom run ([^`]*)`", SWEEPS)
    (sweep,) = re.findall(r"`(sweep=)'(.*)'`", SWEEPS)
    teachers = [cell.teacher for cell in load_recipe(recipe, ["".join(sweep)]).values()]
    parsed = [TEACHERS[told["name"]].config.parse(told, "teacher") for told in teachers]
    assert [told.model_dump()["teacher"] for told in parsed] == ["chatgpt", "gemini"]


def test_one_experiment_compares_nothing_and_names_the_sweep() -> None:
    cost = finding("operations an answer", 2e6, 1e6, 3e6, 1e6, lens="cost", subject="normal")
    taught, worth = suits(Evidence(SCORES, [], [cost], taught=[WRITTEN]))
    assert taught.startswith("Taught was worked, plain, 3: 7 [6.5, 7.5] words a rationale (n = 20).")
    assert taught.endswith(f"not established. {SWEEPS}")
    assert "`stillroom run granularity-svamp`" in taught
    assert worth == (
        "What each student is worth, so taught: normal 99.0 % [95.0 %, 100.0 %] (n = 100) right at 2 [1, 3] million "
        "operations an answer; null (the most frequent training answer) 10.0 % [5.0 %, 15.0 %] (n = 100) for nothing."
    )
    assert suits(Evidence(SCORES, [], [cost])) == []
    seeds = [cost.model_copy(update={"subject": f"normal@{seed}", "value": 2e6 + seed * 1e6}) for seed in (0, 1)]
    assert suits(Evidence(SCORES, [], seeds, taught=[WRITTEN])) == [taught, worth]


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.3, "finer is better"), (-0.3, -0.1, "finer is worse"),
                                 (-0.1, 0.3, "no slope is established")],
)  # fmt: skip
def test_an_axis_suits_only_where_its_interval_leaves_0_out(low: float, high: float, verdict: str) -> None:
    (told,) = suited(GRID, [effect("granularity", "slope", low, high)], SCORES)
    assert told == (
        "normal, small: right most often with granularity 2, plain, gemini, in 50.0 % [45.0 %, 55.0 %] (n = 300), "
        f"above the null, the most frequent training answer: 10.0 % [5.0 %, 15.0 %] (n = 100). Granularity: {verdict} "
        f"({50 * (low + high):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points a level). "
        "Format: not compared here. Teacher: not compared here."
    )


def test_each_student_is_told_of_its_own_effects_alone() -> None:
    large = [row.model_copy(update={"base": "large", "value": 0.1, "low": 0.05, "high": 0.16}) for row in GRID]
    effects = [
        effect("teacher", "gemini − chatgpt", 0.1, 0.3, "normal, plain, small"),
        effect("format", "symbolic − plain", -0.3, -0.1, "normal, gemini, level 1, large"),
        effect("strength", "slope, large − small", 0.1, 0.2, "normal, gemini, plain"),
    ]
    small, other, strength = suited([*GRID, *large], effects, SCORES)
    assert "Teacher: gemini − chatgpt: +20.0 [+10.0, +30.0] points, better." in small
    assert "Format: not compared here." in small
    assert "not above the null" in other
    assert (
        "Format: symbolic − plain: -20.0 [-30.0, -10.0] points, worse; 1 of 1 intervals leave 0 out; by all of them "
        in other
    )
    assert "Teacher: not compared here." in other
    assert strength.startswith("Strength: normal, gemini, plain: slope, large − small: +15.0")


def test_a_sweep_over_something_else_says_so() -> None:
    assert suited(GRID, [effect("strength", "slope", 0.1, 0.2)], SCORES) == [UNVARIED]
