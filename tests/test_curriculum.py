"""Lessons: the founding format to the letter, the same problems in every arm, and a primer as large as asked."""

import random
from collections import Counter
from pathlib import Path

import pytest

from stillroom.curriculum import LessonsConfig, PrimerConfig, make_lessons, make_primer
from stillroom.errors import DataError
from stillroom.files import read_lines, write_lines
from stillroom.records import Lesson, Problem, Rationale
from stillroom.store import Workplace
from toys import problem, sums, workplace


def rationale(one: Problem) -> Rationale:
    text = "\n".join(f"Step {i}: {s.expression} = {s.value}" for i, s in enumerate(one.steps, 1))
    return Rationale(problem=one.id, teacher="worked", granularity=None, format="plain", text=text)


def house(folder: Path, train: list[Problem], skip: tuple[str, ...] = (), narrated: list[Problem] | None = None):
    """Folders in which the teacher left the problems `skip` out, and wrote the others backwards."""
    write_lines(workplace(folder / "problems").out / "train.jsonl", train)
    if narrated is not None:
        write_lines(folder / "problems" / "narrated.jsonl", narrated)
    written = [rationale(p) for p in reversed(train) if p.id not in skip]
    write_lines(workplace(folder / "rationales").out / "rationales.jsonl", written)
    return {"problems": folder / "problems", "rationales": folder / "rationales"}


def lessons(folder: Path, parents: dict[str, Path], variant: str) -> list[Lesson]:
    at = workplace(folder / variant, parents=parents)
    make_lessons(LessonsConfig(variant=variant), at)
    return read_lines(at.out / "lessons.jsonl", Lesson)


def primer(folder: Path, parents: dict[str, Path], **counts: int) -> list[Lesson]:
    at: Workplace = workplace(folder / "primer", parents=parents)
    make_primer(PrimerConfig(**{"singles": 0, "lines": 0, "stories": 0, **counts}), at)
    return read_lines(at.out / "lessons.jsonl", Lesson)


def test_the_founding_format_to_the_letter(tmp_path: Path) -> None:
    one = problem("p", ("2 + 3", 5), ("5 + 4", 9), question="How many?")
    parents = house(tmp_path, [one])
    (normal,) = lessons(tmp_path, parents, "normal")
    (distilled,) = lessons(tmp_path, parents, "distilled")
    assert normal.completion == "<reasoning>\nStep 1: 2 + 3 = 5\nStep 2: 5 + 4 = 9\n</reasoning>\nThe answer is 9."
    assert distilled.completion == "The answer is 9."
    assert normal.prompt == distilled.prompt == "How many?"
    assert normal.problem == distilled.problem == "p"


def test_what_a_teacher_left_out_is_left_out_of_every_arm(tmp_path: Path) -> None:
    parents = house(tmp_path, sums(6), skip=("sum-1", "sum-4"))
    arms = [[lesson.problem for lesson in lessons(tmp_path, parents, arm)] for arm in ("normal", "distilled")]
    assert arms[0] == arms[1] == ["sum-0", "sum-2", "sum-3", "sum-5"]
    names = {lesson.problem for lesson in primer(tmp_path, parents, lines=40, stories=40)}
    assert names == set(arms[0])


def test_the_primer_has_as_many_of_each_as_asked_each_equally_often(tmp_path: Path) -> None:
    narrated = [problem(f"n-{i}", (f"{i} + 1", i + 1), question=f"Story {i}") for i in range(3)]
    found = primer(tmp_path, house(tmp_path, sums(4), narrated=narrated), singles=7, lines=9, stories=4)
    singles, lines, stories = found[:7], found[7:16], found[16:]
    assert sorted(Counter(lesson.problem for lesson in singles).values()) == [2, 2, 3]
    assert {(x.prompt, x.completion) for x in singles} == {(f"Story {i}", f"The answer is {i + 1}.") for i in range(3)}
    written = {text for p in sums(4) for text in rationale(p).text.splitlines()}
    assert len(lines) == 9
    assert all(lesson.prompt == "" and lesson.completion in written for lesson in lines)
    assert sorted(lesson.completion for lesson in stories) == sorted(p.question for p in sums(4))
    assert all(lesson.prompt == "" for lesson in stories)


def test_the_primer_never_shows_two_steps_of_one_problem_together(tmp_path: Path) -> None:
    found = primer(tmp_path, house(tmp_path, sums(9)), lines=50)
    assert all(lesson.completion.count("=") == 1 for lesson in found)
    assert {lesson.completion.partition(":")[0] for lesson in found} == {"Step 1", "Step 2"}


def test_without_narrated_stories_the_single_steps_are_problems_of_one_step(tmp_path: Path) -> None:
    short = [problem(f"s-{i}", ("1 + 1", 2)) for i in range(2)]
    found = primer(tmp_path, house(tmp_path, [*sums(3), *short]), singles=4)
    assert {lesson.problem for lesson in found} == {"s-0", "s-1"}
    with pytest.raises(DataError, match=r"asks for 4 lessons from problems of a single step, .*set it to 0"):
        primer(tmp_path, house(tmp_path / "none", sums(3)), singles=4)


def test_the_same_seed_is_the_same_primer_whatever_was_drawn_before(tmp_path: Path) -> None:
    parents = house(tmp_path, sums(9))
    first = primer(tmp_path, parents, lines=20, stories=5)
    random.seed(5)
    assert primer(tmp_path, parents, lines=20, stories=5) == first
    assert primer(tmp_path, parents, lines=20, stories=5, seed=1) != first
