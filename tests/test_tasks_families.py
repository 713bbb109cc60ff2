"""The synthetic families: published formats, true steps, disjoint splits, and no constant that answers for free."""

import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest
from pydantic import ValidationError

from stillroom.records import Problem
from stillroom.tasks import TASKS, check, multiplication, polynomial, prosqa
from stillroom.tasks.answers import grade
from stillroom.tasks.multiplication import MultiplicationConfig
from stillroom.tasks.polynomial import PolynomialConfig, remembered
from stillroom.tasks.prosqa import SIZES, ProsqaConfig

DATA = Path(__file__).parents[2] / "shared" / "data"
SMALL = {
    "multiplication": {"digits": 3, "train": 60, "narrated": 20, "validation": 10, "test": 20},
    "polynomial": {"train": 60, "narrated": 20, "validation": 3, "test": 5},
    "prosqa": {"train": 60, "narrated": 20, "validation": 10, "test": 20},
}


def splits(name: str, **more: object) -> dict[str, list[Problem]]:
    row = TASKS[name]
    return dict(row.splits(row.config(**{**SMALL[name], **more}), Path()))


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_gives_the_same_problems_and_another_seed_others(name: str) -> None:
    assert splits(name) == splits(name)
    assert splits(name)["test"] != splits(name, seed=1)["test"]


@pytest.mark.parametrize("name", SMALL)
def test_every_law_of_a_task_holds_and_no_skeleton_is_in_two_splits(name: str) -> None:
    made = splits(name)
    check(made)
    homes = defaultdict(set)
    for split, problems in made.items():
        for p in problems:
            homes[p.skeleton].add("train" if split == "narrated" else "test" if split == "longer" else split)
    assert all(len(where) == 1 for where in homes.values())
    assert all(len(p.steps) == 1 for p in made["narrated"])


@pytest.mark.parametrize("name", SMALL)
def test_every_gold_grades_correct_and_the_last_step_gives_it(name: str) -> None:
    for p in splits(name)["test"]:
        assert p.steps[-1].value == p.answer
        for text in (p.answer, f"The answer is {p.answer}."):
            assert grade(p.kind, p.answer, text, p.choices).correct


def test_multiplication_is_written_as_published() -> None:
    p = multiplication.problem(2967, 6361, 4)
    assert p.question == "7 6 9 2 * 1 6 3 6"
    assert p.solution == "7 6 9 2 0 + 0 2 0 8 7 1 ( 7 8 9 0 8 1 ) + 0 0 1 0 9 8 0 ( 7 8 0 1 7 0 1 ) + 0 0 0 2 0 8 7 1"
    assert p.answer == "7 8 0 3 7 8 8 1"
    zero = multiplication.problem(1111, 4034, 4)
    assert zero.solution.split(" + ")[2] == "0 0 0 0 0 0 0 ( 4 7 7 7 3 0 0 )"
    assert multiplication.problem(7, 8, 1).answer == "6 5"


def test_multiplication_s_steps_are_true() -> None:
    def value(digits: str) -> int:
        return int("".join(reversed(digits.split())))

    for p in splits("multiplication")["test"]:
        a, b = (value(side) for side in p.question.split(" * "))
        assert value(p.answer) == a * b
        for step in p.steps:
            op = "*" if "*" in step.expression else "+"
            left, right = (value(side) for side in step.expression.split(f" {op} "))
            assert value(step.value) == (left * right if op == "*" else left + right)


def test_both_orders_of_a_product_share_a_skeleton() -> None:
    assert multiplication.problem(12, 34, 2).skeleton == multiplication.problem(34, 12, 2).skeleton


def test_polynomial_s_steps_are_true_and_lengths_are_as_asked() -> None:
    made = splits("polynomial", modulus=12, fewest=2, hops=4)
    assert Counter(len(p.steps) for p in made["test"]) == {2: 5, 3: 5, 4: 5}
    assert {len(p.steps) for p in made["longer"]} == {5}
    for p in made["test"]:
        assert [str(eval(s.expression.replace("mod", "%"))) for s in p.steps] == [s.value for s in p.steps]


def test_what_is_left_of_the_start() -> None:
    assert remembered([3, 5, 10], 11) == 11
    assert remembered([3, 4], 12) == 1
    assert remembered([2], 12) == 6
    for factors, m in (((3, 4), 12), ((2, 5), 12), ((7, 9), 11)):
        ends = {int(polynomial.problem(start, factors, 5, m).answer) for start in range(m)}
        assert len(ends) == remembered(factors, m)


def test_no_constant_answers_a_polynomial_well() -> None:
    def majority(m: int) -> float:
        answers = Counter(p.answer for p in splits("polynomial", modulus=m, test=1000)["test"])
        return max(answers.values()) / answers.total()

    assert majority(11) < 1.25 / 11
    assert majority(12) < 2 / 12  # factors that share a divisor with 12 pull values to 0


def test_a_polynomial_s_bounds_are_told() -> None:
    with pytest.raises(ValidationError, match="fewest is 6, more than hops, 5"):
        PolynomialConfig(fewest=6)


def edges(p: Problem) -> dict[str, list[str]]:
    found = defaultdict(list)
    for sentence in p.story.rstrip(".").split(". "):
        subject, thing = sentence.removeprefix("Every ").split(" is a ")
        found[subject].append(thing)
    return found


def reach(graph: dict[str, list[str]], start: str) -> dict[str, int]:
    depth, queue = {start: 0}, [start]
    for node in queue:
        for child in graph.get(node, []):
            if child not in depth:
                depth[child] = depth[node] + 1
                queue.append(child)
    return depth


def test_prosqa_s_person_is_one_candidate_by_a_shortest_path_and_not_the_other() -> None:
    for p in splits("prosqa")["test"]:
        person = p.question.rpartition("Is ")[2].split()[0]
        depth = reach(edges(p), person)
        (wrong,) = set(p.choices) - {p.answer}
        assert wrong not in depth
        assert depth[p.answer] == len(p.steps)
        assert all(step.expression in p.story for step in p.steps)


def test_a_renamed_graph_has_the_same_skeleton_and_another_graph_another() -> None:
    rng = random.Random(0)
    graph = prosqa.grow(rng, 12)
    path = max(prosqa.paths(graph, 0).values(), key=len)
    names = list(range(12))
    rng.shuffle(names)
    renamed = graph._replace(edges=tuple((names[a], names[b]) for a, b in graph.edges))
    moved = [names[node] for node in path]
    assert prosqa.skeleton(graph, path, 11) == prosqa.skeleton(renamed, moved, names[11])
    assert prosqa.skeleton(graph, path, 11) != prosqa.skeleton(graph, path, 10)


GUESSES: dict[str, Callable[[Problem], str]] = {
    "first": lambda p: p.choices[0],
    "last mentioned": lambda p: max(p.choices, key=lambda c: p.story.rfind(f" {c}.")),
}


@pytest.mark.parametrize("name", GUESSES)
def test_the_order_of_prosqa_s_sentences_and_candidates_tells_nothing(name: str) -> None:
    problems = splits("prosqa", test=1000)["test"]
    if name == "last mentioned":  # the wrong candidate has more sentences: compare among those with as many
        problems = [p for p in problems if len({p.story.count(f" {c}.") for c in p.choices}) == 1]
    right = mean(GUESSES[name](p) == p.answer for p in problems)
    assert right == pytest.approx(0.5, abs=3 * 0.5 / len(problems) ** 0.5)


@pytest.mark.skipif(not DATA.exists(), reason="the published test set lies in shared/data, which is not here")
def test_prosqa_s_graphs_are_like_the_published_ones() -> None:
    published = [json.loads(line) for line in (DATA / "prosqa_test.jsonl").read_text().splitlines()]
    ours = splits("prosqa", test=1000)["test"]
    lengths = Counter(len(row["steps"]) for row in published)
    made = Counter(len(p.steps) for p in ours)
    for steps in (3, 4, 5, 6):
        assert made[steps] / 1000 == pytest.approx(lengths[steps] / 500, abs=0.07)
    assert mean(p.story.count(".") for p in ours) == pytest.approx(mean(len(r["edges"]) for r in published), rel=0.05)
    assert SIZES[0] <= mean(len(row["idx_to_symbol"]) for row in published) <= SIZES[1]


@pytest.mark.parametrize(
    ("config", "word"), [(MultiplicationConfig, "digits"), (PolynomialConfig, "modulus"), (ProsqaConfig, "train")]
)
def test_ranges_are_checked(config: type, word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        config(**{word: 0})


@pytest.mark.parametrize("name", SMALL)
def test_each_family_runs_from_problems_to_report(name: str, tmp_path: Path) -> None:
    recipe = tmp_path / "family.yaml"
    primer = {"singles": 20, "lines": 20, "stories": 20}
    scratch = {"width": 16, "layers": 1, "heads": 1, "feed_forward": 32}
    fit = {"updates": 3, "batch_size": 8}
    students = {"normal": {"variant": "normal"}, "distilled": {"variant": "distilled"}}
    data = {
        "task": {"name": name, **SMALL[name]}, "base": {"scratch": scratch, "primer": primer, "fit": fit},
        "students": students, "fit": fit, "evaluate": {"train_sample": 5, "new_tokens": 4}, "lenses": {"weights": {}},
    }  # fmt: skip
    recipe.write_text(json.dumps(data))
    environment = {**os.environ, "STILLROOM_STORE": str(tmp_path / "store")}
    call = [sys.executable, "-m", "stillroom", "run", str(recipe), "settings.device=cpu"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
