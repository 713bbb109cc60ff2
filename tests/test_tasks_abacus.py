"""The grammar keeps its word: values in range, steps that compute, and splits that share no skeleton."""

import random
import re
from itertools import pairwise
from pathlib import Path

import pytest

from stillroom.records import Problem
from stillroom.tasks.abacus import AbacusConfig, draw_skeleton, splits

SMALL = AbacusConfig(train=903, narrated=300, validation=20, test=40, steps=4, largest=30)
EVALUATED = ("validation", "test", "compositional", "longer")


def made(**changes: object) -> dict[str, list[Problem]]:
    return splits(AbacusConfig(**{**SMALL.model_dump(), **changes}), Path())


@pytest.fixture(scope="module")
def problems() -> dict[str, list[Problem]]:
    return made()


def operations(problem: Problem) -> list[tuple[int, str, int]]:
    parsed = [re.fullmatch(r"(\d+) ([-+*]) (\d+)", step.expression) for step in problem.steps]
    return [(int(m[1]), m[2], int(m[3])) for m in parsed if m]


def test_every_step_computes_and_leads_to_the_next(problems) -> None:
    for problem in (p for split in problems.values() for p in split):
        worked = operations(problem)
        assert len(worked) == len(problem.steps)
        values = [{"+": a + b, "-": a - b, "*": a * b}[op] for a, op, b in worked]
        assert [step.value for step in problem.steps] == [str(value) for value in values]
        assert [a for a, _, _ in worked[1:]] == values[:-1]
        assert problem.answer == str(values[-1])
        assert problem.skeleton == " ".join([str(worked[0][0]), *(f"{op}{b}" for _, op, b in worked)])


@pytest.mark.parametrize("largest", [5, 30])
def test_every_value_and_operand_is_in_range(largest: int) -> None:
    for problem in (p for split in made(largest=largest, steps=3, test=5).values() for p in split):
        for a, _, b in operations(problem):
            assert 0 <= a <= largest
            assert 1 <= b <= largest
        assert all(0 <= int(step.value) <= largest for step in problem.steps)
        assert all(int(n) <= largest for n in re.findall(r"\d+", problem.question))


def test_a_question_tells_its_start_and_operands_in_order(problems) -> None:
    for name, split in problems.items():
        for problem in split:
            told = re.findall(r"\d+", problem.question)
            needed = re.findall(r"\d+", problem.skeleton)
            rest = iter(told)
            assert all(number in rest for number in needed), problem  # a subsequence
            stated = len(problem.steps) - 1 if name == "narrated" else 0
            assert len(told) - len(needed) - stated in (0, 1)  # one distractor at most


def test_a_narrated_story_states_every_total_but_the_last(problems) -> None:
    for problem in problems["narrated"]:
        start, *operands = re.findall(r"\d+", problem.skeleton)
        totals = [step.value for step in problem.steps]
        story = [start, *(n for pair in zip(operands, totals, strict=True) for n in pair)][:-1]
        told = iter(re.findall(r"\d+", problem.question))
        assert all(number in told for number in story), problem  # a subsequence


def test_no_skeleton_stands_in_two_splits(problems) -> None:
    home = {name: {p.skeleton for p in split} for name, split in problems.items()}
    taught = home["train"] | home["narrated"]
    for name in EVALUATED:
        assert home[name]
        assert not home[name] & taught, name
    assert not home["validation"] & (home["test"] | home["compositional"] | home["longer"])
    assert not home["test"] & home["compositional"]


def test_the_held_out_pair_stands_in_its_own_split_alone(problems) -> None:
    for name, split in problems.items():
        for problem in split:
            pairs = {a + b for a, b in pairwise(op for _, op, _ in operations(problem))}
            assert ("*-" in pairs) == (name == "compositional"), (name, problem.skeleton)
    other = made(held_out_pair="++", train=100, test=10)
    assert all(re.search(r"\+\d+ \+", p.skeleton) for p in other["compositional"])
    assert not any(re.search(r"\+\d+ \+", p.skeleton) for p in other["train"])


def test_evaluation_splits_hold_each_skeleton_once_and_ids_are_unique(problems) -> None:
    for name in EVALUATED:
        skeletons = [p.skeleton for p in problems[name]]
        assert len(skeletons) == len(set(skeletons)), name
    ids = [p.id for split in problems.values() for p in split]
    assert len(ids) == len(set(ids))


def test_splits_have_their_sizes_and_lengths(problems) -> None:
    def lengths(name: str) -> dict[int, int]:
        found = [len(p.steps) for p in problems[name]]
        assert found == sorted(found)
        return {n: found.count(n) for n in sorted(set(found))}

    assert lengths("train") == {1: 226, 2: 226, 3: 226, 4: 225}
    assert sum(lengths("narrated").values()) == 300
    assert max(lengths("narrated")) > 1
    assert lengths("validation") == dict.fromkeys((1, 2, 3, 4), 20)
    assert lengths("test") == dict.fromkeys((1, 2, 3, 4), 40)
    assert lengths("compositional") == dict.fromkeys((2, 3, 4), 40)  # one step has no pair
    assert lengths("longer") == {5: 40}


def test_the_same_seed_is_the_same_problems_and_another_is_not(problems) -> None:
    assert made() == problems
    other = made(seed=1)
    assert other["train"] != problems["train"]
    assert {p.skeleton for p in other["test"]}.isdisjoint({p.skeleton for p in problems["train"]})


def test_a_short_task_ends_where_skeletons_run_out() -> None:
    few = made(largest=5, steps=1, train=10, narrated=3, test=1000, validation=1000)
    assert 0 < len(few["test"]) < 30
    assert few["compositional"] == []


def test_distractors_come_as_often_as_asked() -> None:
    def share(distractor: float) -> float:
        split = made(distractor=distractor, train=600)["train"]
        more = [len(re.findall(r"\d+", p.question)) > len(p.steps) + 1 for p in split]
        return sum(more) / len(more)

    assert share(0) == 0
    assert share(1) == 1
    assert 0.1 < share(0.2) < 0.3


def test_all_three_operations_are_drawn() -> None:
    rng = random.Random(0)
    drawn = [op for _ in range(300) for op, _ in draw_skeleton(rng, 3, AbacusConfig()).changes]
    assert all(drawn.count(op) / len(drawn) > 0.1 for op in "+-*")
