"""The contamination gate finds what is shared, at the right level, and stops what would make a test worthless."""

from pathlib import Path

import pytest

from stillroom.errors import DataError
from stillroom.files import read_lines, write_lines
from stillroom.records import Overlap, Problem
from stillroom.tasks import TASKS
from stillroom.tasks.contamination import ContaminationConfig, Split, compare, make_overlaps, refuse, words
from toys import problem, workplace

LONG = "Ann walks to the old mill by the river and counts 12 ducks on the way home today"


def asked(name: str, question: str, **more: object) -> Problem:
    return Problem(task="toy", id=name, question=question, answer="1", **more)  # type: ignore[arg-type]


def found(taught: Problem, tested: Problem) -> dict[str, int]:
    both = [Split("a/train", "taught", [taught]), Split("b/test", "tested", [tested])]
    return {overlap.level: overlap.count for overlap in compare(both)}


@pytest.mark.parametrize(
    ("left", "right", "levels"),
    [
        ("Ann has 3 eggs.", "Ann has 3 eggs.", {"exact", "normalised", "masked"}),
        ("Ann has 3 eggs.", "ANN has  3 eggs", {"normalised", "masked"}),
        ("Ann has 1,000 eggs.", "Ann has 1000 eggs!", {"normalised", "masked"}),
        ("Ann's well-known eggs", "Ann s well known eggs", {"normalised", "masked"}),
        ("What is 3 + 4?", "What is 3 - 4?", {"masked"}),
        ("What is 1.5?", "What is 15?", {"masked"}),
        ("Ann has 3 eggs.", "Ann has 1,250.75 eggs.", {"masked"}),
        (LONG, LONG.replace("Ann", "Ben") + ".", {"13-gram"}),
        (LONG, "Ann walks to the old mill by the river and counts 7 ducks on the way", set()),
        ("Ann has 3 eggs.", "Ben has 3 eggs.", set()),
    ],
)
def test_the_level_of_likeness(left: str, right: str, levels: set[str]) -> None:
    got = found(asked("l", left), asked("r", right))
    assert set(got) - {"13-gram"} == levels - {"13-gram"}
    assert ("13-gram" in levels) <= ("13-gram" in got)


def test_mathematics_keeps_its_signs() -> None:
    assert words("Find $x+1$.", "math") == "find$x+1$."
    left, right = (asked("x", f"Find $x {sign} 1$.", kind="math") for sign in "+-")
    assert found(left, right) == {"masked": 1}
    assert "normalised" in found(left, asked("y", "find $x+1$.", kind="math"))


def test_the_same_stem_with_other_choices_is_another_problem() -> None:
    left = asked("l", "Which is red?", kind="choice", choices=("A) sky", "B) blood"))
    assert found(left, asked("r", "Which is red?", kind="choice", choices=("A) grass", "B) a rose"))) == {"masked": 1}
    swapped = asked("r", "Which is red?", kind="choice", choices=("B) blood", "A) sky"))
    assert found(left, swapped) == {"normalised": 1, "masked": 1}


def test_options_that_stand_under_the_question_are_not_part_of_it() -> None:
    listed = [
        asked(name, f"Which?\n(A) {a}\n(B) {b}", kind="choice", choices=(a, b), story="Which?")
        for name, a, b in (("l", "sky", "sea"), ("r", "sea", "sky"), ("m", "sea", "ice"))
    ]
    assert found(listed[0], listed[1]) == {"normalised": 1, "masked": 1}
    assert found(listed[0], listed[2]) == {"masked": 1}


def test_the_story_alone_is_compared_where_it_is_known() -> None:
    left = asked("l", "Ann has 3 eggs. How many?", story="Ann has 3 eggs.")
    assert found(left, asked("r", "Ann has 5 eggs. Are there more?", story="Ann has 5 eggs.")) == {"masked": 1}


def test_synthetic_problems_are_compared_by_skeleton() -> None:
    left = problem("l", ("1 + 1", 2), question="Ann has 1 egg and gets 1.", skeleton="1 +1")
    renamed = problem("r", ("1 + 1", 2), question="Ben has 1 pen and gets 1.", skeleton="1 +1")
    other = problem("r", ("1 + 2", 3), question="Ann has 1 egg and gets 2.", skeleton="1 +2")
    assert found(left, renamed) == {"skeleton": 1}
    assert found(left, other) == {}


def test_of_two_tested_splits_the_larger_stands_on_the_left_and_nothing_is_refused() -> None:
    small, large = [asked("s", "Ann?")], [asked("l", "Ann?"), asked("m", "Ben?")]
    got = compare([Split("small/test", "tested", small), Split("large/test", "tested", large)])
    assert {(o.left, o.right, o.count, o.n) for o in got} == {("large/test", "small/test", 1, 1)}
    assert got[0].examples == (("l", "s"),)
    refuse(got, ())


def test_what_is_taught_twice_is_no_overlap() -> None:
    one = [asked("l", "Ann?")]
    assert compare([Split("a/train", "taught", one), Split("a/narrated", "taught", one)]) == []


def test_shared_problems_stop_the_run_unless_the_pair_is_allowed() -> None:
    got = compare([Split("a/train", "taught", [asked("l", "Ann?")]), Split("b/test", "tested", [asked("r", "ann")])])
    told = r"a/train x b/test: 1 of 1 are the same \(normalised\), the first is 'r'.*=\[\"a/train x b/test\"\]"
    with pytest.raises(DataError, match=told):
        refuse(got, ("a/train x c/test",))
    refuse(got, ("a/train x b/test",))


def test_numbers_changed_are_told_and_do_not_stop(tmp_path: Path) -> None:
    at = gate(tmp_path, {"train": "Ann has 3.", "test": "Ann has 4."}, {})
    (overlap,) = read_lines(at / "overlaps.jsonl", Overlap)
    assert (overlap.left, overlap.right, overlap.level, overlap.count) == ("a/train", "a/test", "masked", 1)


def test_of_further_tasks_only_the_test_splits_count(tmp_path: Path) -> None:
    gate(tmp_path, {"train": "Ann?", "test": "Ben?"}, {"train": "Ann?", "validation": "Ann?", "test": "Cara?"})
    with pytest.raises(DataError, match="a/train x b/test"):
        gate(tmp_path / "again", {"train": "Ann?", "test": "Ben?"}, {"test": "Ann?"})


def gate(root: Path, own: dict[str, str], further: dict[str, str]) -> Path:
    """The folder that the stage writes for a task `a` and a further task `b`."""
    at = workplace(root, parents={role: root / role for role in ("problems", "problems b")})
    for role, splits in {"problems": own, "problems b": further}.items():
        at.parents[role].mkdir()
        for split, question in splits.items():
            write_lines(at.parents[role] / f"{split}.jsonl", [asked(split, question)])
    make_overlaps(ContaminationConfig(allow=(), tasks={"problems": "a", "problems b": "b"}), at)
    return at.out


DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not DATA.exists(), reason="the published files lie in shared/data, which is not here")
def test_the_known_overlaps_of_published_benchmarks_are_found() -> None:
    """Pitfall 13."""

    def split(task: str, part: str, role: str) -> Split:
        row = TASKS[task]
        config = row.config.model_validate({"validation": 1} if "validation" in row.config.model_fields else {})
        made = row.splits(config, DATA)
        problems = [*made["train"], *made["validation"]] if part == "train" else made[part]
        return Split(f"{task}/{part}", role, problems)

    tested = [("gsm8k", "test"), ("gsm8k_aug", "validation"), ("gsm_hard", "test"), ("mawps", "test"),
              ("multiarith", "test"), ("svamp", "test")]  # fmt: skip
    taught = [split(task, "train", "taught") for task in ("gsm8k", "svamp")]
    got = compare([*taught, *(split(task, part, "tested") for task, part in tested)])
    count = {(o.left, o.right, o.level): (o.count, o.n) for o in got}
    assert count["gsm8k/train", "gsm8k_aug/validation", "exact"] == (500, 500)
    assert count["gsm8k/test", "gsm_hard/test", "exact"] == (329, 1319)
    assert count["mawps/test", "multiarith/test", "normalised"] == (580, 580)  # without MultiArith's own duplicates
    assert count["svamp/train", "svamp/test", "masked"] == (131, 300)
    with pytest.raises(DataError, match=r"gsm8k/train x gsm8k_aug/validation: 500 of 500 are the same \(exact\)"):
        refuse(got, ())
