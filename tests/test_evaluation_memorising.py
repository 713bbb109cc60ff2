"""Solved or memorised: differences worked by hand, neighbours by law, copies that no student was taught."""

from pathlib import Path

import pytest

from stillroom.evaluation.memorising import (
    COPIES,
    NEIGHBOUR,
    ORIGINALS,
    Answered,
    MemorisingConfig,
    Whose,
    by_heart,
    copied,
    gaps,
    make_copies,
    make_memorising,
    nearest,
    neighbours,
    renumbering,
)  # fmt: skip
from stillroom.files import read_lines, write_lines
from stillroom.records import Finding, Prediction, Problem
from stillroom.tasks import abacus
from toys import problem, sums, workplace


def said(problems: list[Problem], answers: list[str]) -> list[Prediction]:
    return [
        Prediction(problem=p.id, text=f"The answer is {a}.", tokens=4, stopped=True)
        for p, a in zip(problems, answers, strict=True)
    ]


def test_the_nearest_is_the_same_text_then_that_with_the_rarest_words_in_common() -> None:
    train = ["Ann has 3 eggs.", "Ann has 4 eggs.", "Ben has 3 quinces.", "Ann has 3 eggs."]
    assert nearest(train, train) == [0, 1, 2, 0]
    assert nearest(train, ["Cara eats quinces.", "Ann has 4 pens.", "nothing known"]) == [2, 1, 0]
    assert nearest(train, ["eggs 3 has Ann"]) == [0]
    many = [f"Ann has {i} eggs." for i in range(150)]
    assert nearest(many, many) == list(range(150))  # over several chunks


def test_no_copy_is_computed_as_a_training_problem_is() -> None:
    train = abacus.splits(abacus.AbacusConfig(steps=3, train=600, narrated=3, validation=1, test=1), Path())["train"]
    pairs = copied(train, 40, 0)
    assert len(pairs) == 40
    assert pairs == copied(train, 40, 0) != copied(train, 40, 1)
    taught = {tuple(s.expression for s in p.steps) for p in train}
    for original, copy in pairs:
        assert original in train
        assert tuple(s.expression for s in copy.steps) not in taught
        assert copy.answer != original.answer
        assert max(int(s.value) for s in copy.steps) <= 30


def test_a_copy_that_is_itself_taught_is_left_out() -> None:
    one = problem("a", ("2 + 3", 5), question="Ann has 2 and gets 3.")
    every = [problem(f"{i}{j}", (f"{i} + {j}", i + j), question=f"{i} and {j}") for i in range(10) for j in range(10)]
    assert copied([one, *every], 5, 0) == []


def split(name: str, steps: int, right: list[bool]) -> Answered:
    chain = [(f"{i} + 1", i + 1) for i in range(steps)]
    return Answered([problem(f"{name}{i}", *chain) for i in range(len(right))], right)


def joined(*parts: Answered) -> Answered:
    return Answered([p for part in parts for p in part.problems], [r for part in parts for r in part.right])


def test_gaps_compare_like_with_like() -> None:
    short, long = split("s", 1, [True] * 4), split("l", 2, [True, True, False, False])
    mine = {
        "train": split("t", 1, [True] * 4), "test": joined(short, long),
        "compositional": split("c", 2, [True] + [False] * 3),
        "longer": split("o", 3, [False] * 4),
    }  # fmt: skip
    null = {name: Answered(answered.problems, [False] * len(answered.right)) for name, answered in mine.items()}
    found = {f.metric: f for f in gaps("one", mine, null)}
    assert (found["train minus test accuracy"].value, found["train minus test accuracy"].n) == (0, 8)  # of one step
    assert found["test minus compositional accuracy"].value == pytest.approx(2 / 4 - 1 / 4)  # those with two steps
    assert found["test minus compositional accuracy"].n == 8
    assert found["test minus longer accuracy"].value == pytest.approx(2 / 4)  # against the longest
    assert all(f.nulls[0].value == 0 and f.low < f.value < f.high for f in found.values())


def test_another_mix_of_steps_is_no_memory() -> None:
    """All of one step are solved and none of two, in training as in test: the training sample only has more of one."""
    mine = {
        "train": joined(split("t", 1, [True] * 80), split("u", 2, [False] * 20)),
        "test": joined(split("s", 1, [True] * 10), split("l", 2, [False] * 90)),
    }
    (gap,) = gaps("one", mine, mine)
    assert (gap.value, gap.n, gap.nulls[0].value) == (0, 200, 0)
    known = {**mine, "train": joined(split("t", 1, [True] * 80), split("u", 2, [True] * 20))}
    (gap,) = gaps("one", known, mine)
    weights = 80 * 10 / 90, 20 * 90 / 110
    assert gap.value == pytest.approx(weights[1] / sum(weights))
    assert gap.low > gap.nulls[0].high


def test_other_numbers_cost_what_was_known_by_heart(tmp_path: Path) -> None:
    originals = sums(4)
    copies = [p.model_copy(update={"id": f"{p.id}-c", "answer": str(int(p.answer) + 10)}) for p in originals]
    knows = said(copies, [originals[0].answer, originals[1].answer, copies[2].answer, originals[0].answer])
    write_lines(tmp_path / "copies.jsonl", knows)
    right = [False, False, True, False]
    null = {name: Answered(originals, [False] * 4) for name in (ORIGINALS, COPIES)}
    cost = renumbering("one", [True] * 4, right, null)
    assert (cost.value, cost.n, cost.nulls[0].value) == (0.75, 4, 0)
    heart = by_heart("one", originals, Answered(copies, right), tmp_path / "copies.jsonl")
    assert (heart.value, heart.nulls[0].value) == (0.5, 0.25)  # the fourth got the answer of the next, the first


def test_the_neighbour_s_answer_is_right_where_training_holds_the_problem() -> None:
    train = sums(6)
    splits = {"train": train, "test": train[:2], "longer": [train[2].model_copy(update={"answer": "99"})]}
    null = {name: Answered(problems, [False] * len(problems)) for name, problems in splits.items()}
    found = list(neighbours(train, splits, null, 300))
    assert [(f.subject, f.metric, f.value, f.n) for f in found] == [
        (NEIGHBOUR, "test accuracy", 1.0, 2), (NEIGHBOUR, "longer accuracy", 0.0, 1),
    ]  # fmt: skip


def test_the_stages_hold_every_measure_with_its_null(tmp_path: Path) -> None:
    splits = abacus.splits(abacus.AbacusConfig(steps=2, train=60, narrated=3, validation=2, test=5), Path())
    folder = {name: workplace(tmp_path / name).out for name in ("problems", "one", "again")}
    for name, problems in splits.items():
        write_lines(folder["problems"] / f"{name}.jsonl", problems)
    made = workplace(tmp_path / "copies", parents={"problems": folder["problems"]})
    make_copies(MemorisingConfig(copies=10), made)
    asked = {**splits, **{name: read_lines(made.out / f"{name}.jsonl", Problem) for name in (ORIGINALS, COPIES)}}
    for name, problems in asked.items():
        where = folder["again"] if name in (ORIGINALS, COPIES) else folder["one"]
        write_lines(where / f"{name}.jsonl", said(problems, [p.answer for p in problems]))
    parents = {
        "problems": folder["problems"], "copies": made.out, "one": folder["one"], "one on copies": folder["again"],
    }  # fmt: skip
    at = workplace(tmp_path / "out", parents=parents)
    make_memorising(Whose(students={"one": "one"}, train_sample=60), at)
    found = read_lines(at.out / "findings.jsonl", Finding)
    mine = {f.metric: f.value for f in found if f.subject == "one"}
    assert len(mine) == 5
    assert set(mine.values()) == {0.0}  # right everywhere: no gap, and no answer by heart
    assert {f.metric for f in found if f.subject == NEIGHBOUR} == {
        f"{split} accuracy" for split in ("test", "compositional", "longer")
    }
    assert all(f.nulls and f.n > 0 for f in found)


def test_a_task_without_numbers_is_not_copied(tmp_path: Path) -> None:
    folder = workplace(tmp_path / "problems").out
    write_lines(folder / "train.jsonl", [problem("a", ("A is B", 5), question="Is it?")])
    at = workplace(tmp_path / "copies", parents={"problems": folder})
    make_copies(MemorisingConfig(), at)
    assert [(at.out / f"{name}.jsonl").read_text() for name in (ORIGINALS, COPIES)] == ["", ""]
