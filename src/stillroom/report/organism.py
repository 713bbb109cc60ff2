"""The organism on one screen: what each student was shown, and how often it is right, by number of steps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stillroom.records import Score
from stillroom.report.figures import MAJORITY

METHODS = ("codi", "coconut", "stepwise", "gkd")
SHOWN = {
    "normal": "question → steps → answer",
    "distilled": "question → answer",
    "latent": "question → answer",
    "step_by_step": "question → steps; question → answer",
}


class Row(NamedTuple):
    student: str
    shown: str
    cells: list[str]
    """Accuracy and its interval, over all test problems and for each number of steps; empty where there is none."""


def student_steps(scores: Sequence[Score]) -> list[str]:
    """The groups of test problems, all of them first."""
    groups = dict.fromkeys(s.group for s in scores if s.split == "test" and s.metric == "accuracy" and s.group != "all")
    return ["all", *sorted(groups, key=lambda group: (not group.isdigit(), int(group) if group.isdigit() else 0))]


def student_rows(scores: Sequence[Score], resolved: Mapping[str, Any]) -> list[Row]:
    """A row for every student and seed, in the order of the scores."""
    mine = {(s.student, s.seed, s.group): s for s in scores if s.split == "test" and s.metric == "accuracy"}
    people = dict.fromkeys((student, seed) for student, seed, _ in mine)
    several = len({seed for _, seed in people}) > 1
    rows = []
    for student, seed in people:
        name = f"{student}, seed {seed}" if several and student != MAJORITY else student
        found = (mine.get((student, seed, group)) for group in student_steps(scores))
        rows.append(Row(name, _shown(student, resolved), [_cell(score) for score in found]))
    return rows


def _cell(score: Score | None) -> str:
    return "" if score is None else f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def _shown(student: str, resolved: Mapping[str, Any]) -> str:
    if student == MAJORITY:
        return "the most frequent training answer, always: the null"
    told = resolved.get("students", {}).get(student)
    if told is None:
        return "not taught to solve problems" if student == "base" else ""
    shown = SHOWN.get(told["variant"], told["variant"])
    if between := _between(told):
        shown = shown.replace("→", f"→ {between} →", 1)
    methods = [name for name in METHODS if told.get(name)]
    return f"{shown}{f' ({methods[0]})' if methods else ''}"


def _between(told: Mapping[str, Any]) -> str:
    """What a student without words computes on between question and answer: stepwise internalisation leaves nothing."""
    if codi := told.get("codi"):
        return f"{codi['thoughts']} {'pauses' if codi['filler'] else 'thoughts'}" if codi["thoughts"] else ""
    if coconut := told.get("coconut"):
        return f"{coconut['max_latent_stage'] * coconut['thoughts_per_step']} thoughts"
    return f"{told['pauses']} pauses" if told.get("pauses") else ""
