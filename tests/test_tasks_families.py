"""The synthetic families: published formats, true steps, disjoint splits, and no constant that answers for free."""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import mean

import pytest
from pydantic import ValidationError

from nursery import Nursery
from stillroom.curriculum import completion
from stillroom.records import Problem, Step
from stillroom.students.scratch import WORD
from stillroom.tasks import TASKS, check, multiplication, polynomial, prosqa
from stillroom.tasks.answers import grade
from stillroom.tasks.multiplication import MultiplicationConfig
from stillroom.tasks.polynomial import PolynomialConfig, remembered
from stillroom.tasks.prosqa import ProsqaConfig
from stillroom.teachers import WorkedConfig, worked

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


@pytest.mark.parametrize(
    "row",
    [
        "9 1 7 3 * 9 4 3 3||1 7 4 3 3 + 0 6 7 8 4 1 ( 1 3 2 2 8 1 ) + 0 0 7 5 1 1 1 ( 1 3 9 7 9 2 1 ) + 0 0 0 7 5 1 1 1"
        " #### 1 3 9 4 5 4 2 1",
        "8 1 0 2 * 0 1 7 9||0 0 0 0 0 + 0 8 1 0 2 0 ( 0 8 1 0 2 0 ) + 0 0 6 2 1 4 1 ( 0 8 7 2 3 4 1 ) + 0 0 0 2 6 1 8 1"
        " #### 0 8 7 4 9 5 9 1",
    ],
)
def test_multiplication_gives_published_rows(row: str) -> None:
    """The first of data/4_by_4_mult/test_bigbench.txt in da03/Internalize_CoT_Step_by_Step, and one with zeros."""
    a, b = (int(side[::-1].replace(" ", "")) for side in row.partition("||")[0].split(" * "))
    p = multiplication.problem(a, b, 4)
    assert f"{p.question}||{p.solution} #### {p.answer}" == row


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


def room(p: Problem) -> int:
    """Tokens of a worked chain and its answer, the end among them."""
    (rationale,) = worked(WorkedConfig(), [p], Path())
    return len(re.findall(WORD, completion(p, rationale, "normal"))) + 1


def test_the_room_that_a_chain_takes_is_as_the_page_says() -> None:
    nines = [room(multiplication.problem(10**n - 1, 10**n - 1, n)) for n in (3, 4, 5, 7, 9)]
    assert nines == [106, 171, 251, 456, 721]
    assert max(map(room, splits("polynomial")["longer"])) == 100
    assert max(map(room, splits("prosqa", train=500)["train"])) <= 81


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
    assert majority(12) < 1.25 / 12


@pytest.mark.parametrize("m", [6, 7, 8])
def test_even_factors_are_those_that_give_every_answer_equally_often(m: int) -> None:
    for factors in product(range(1, m), repeat=2):
        ends = Counter(polynomial.problem(start, factors, b, m).answer for start in range(m) for b in range(m))
        assert polynomial.even(factors, m) == (set(ends.values()) == {m}), factors


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


def parents(p: Problem, thing: str) -> set[str]:
    return {a for a, things in edges(p).items() if thing in things}


def depth(p: Problem, thing: str) -> int:
    """Edges from the nearest person, whoever that is."""
    graph = edges(p)
    named = {child for things in graph.values() for child in things}
    return min(far[thing] for person in graph.keys() - named if thing in (far := reach(graph, person)))


TRAITS: dict[str, Callable[[Problem, str], int]] = {
    "asked first": lambda p, c: p.choices.index(c),
    "mentioned last": lambda p, c: p.story.rfind(f" {c}."),
    "mentioned first": lambda p, c: p.story.find(f" {c}."),
    "sentences": lambda p, c: p.story.count(f" {c}."),
    "depth": depth,
    "grandparents": lambda p, c: len({b for a in parents(p, c) for b in parents(p, a)}),
    "said of its parents": lambda p, c: sum(len(edges(p)[a]) for a in parents(p, c)),
}
"""What tells one candidate from the other without a look at who is asked about."""


def larger_is_right(problems: list[Problem], trait: str) -> float:
    """How often the candidate with more of a trait is the right one; ties count half."""

    def won(p: Problem) -> float:
        (wrong,) = set(p.choices) - {p.answer}
        right, other = TRAITS[trait](p, p.answer), TRAITS[trait](p, wrong)
        return (right > other) + (right == other) / 2

    return mean(won(p) for p in problems)


@pytest.fixture(scope="module")
def graphs() -> list[Problem]:
    return splits("prosqa", test=600)["test"]


@pytest.fixture(scope="module")
def published() -> list[Problem]:
    """The published test set as problems of ours."""
    if not DATA.exists():
        pytest.skip("the published test set lies in shared/data, which is not here")
    rows = [json.loads(line) for line in (DATA / "prosqa_test.jsonl").read_text().splitlines()]
    return [
        Problem(
            task="prosqa", id=str(i), question=row["question"], story=row["question"].rpartition(" Is ")[0],
            answer=row["idx_to_symbol"][row["target"]], kind="choice", choices=(question[-3], question[-1]),
            steps=tuple(Step(expression=step, value=step.split()[-1].rstrip(".")) for step in row["steps"]),
        )
        for i, row in enumerate(rows)
        for question in [row["question"].rstrip("?").split()]
    ]  # fmt: skip


@pytest.mark.parametrize("trait", TRAITS)
def test_no_trait_of_prosqa_s_candidates_tells_the_right_one(graphs, trait: str) -> None:
    assert larger_is_right(graphs, trait) == pytest.approx(0.5, abs=3 * 0.5 / len(graphs) ** 0.5)


def test_the_published_prosqa_can_be_answered_without_the_person(published) -> None:
    assert larger_is_right(published, "depth") > 0.9
    assert larger_is_right(published, "sentences") < 0.35


def test_prosqa_s_graphs_are_like_the_published_ones(graphs, published) -> None:
    def shares(problems: list[Problem]) -> list[float]:
        lengths = Counter(len(p.steps) for p in problems)
        return [lengths[n] / len(problems) for n in (3, 4, 5, 6)]

    def sizes(p: Problem) -> tuple[int, int]:
        graph = edges(p)
        return len({*graph, *(child for things in graph.values() for child in things)}), sum(map(len, graph.values()))

    assert shares(graphs) == pytest.approx(shares(published), abs=0.07)
    for part in (0, 1):
        ours, theirs = (mean(sizes(p)[part] for p in problems) for problems in (graphs, published))
        assert ours == pytest.approx(theirs, rel=0.05)
    words = {word for p in published for word in {*edges(p), *(c for things in edges(p).values() for c in things)}}
    assert words == {*prosqa.PEOPLE, *prosqa.THINGS}


@pytest.mark.parametrize(
    ("config", "word"), [(MultiplicationConfig, "digits"), (PolynomialConfig, "modulus"), (ProsqaConfig, "train")]
)
def test_ranges_are_checked(config: type, word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        config(**{word: 0})


@pytest.mark.parametrize("name", SMALL)
def test_each_family_runs_from_problems_to_report(name: str, tmp_path: Path, nursery: Nursery) -> None:
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
    log, environment = tmp_path / "log", {"STILLROOM_STORE": str(tmp_path / "store")}
    ended, told = nursery.run(log, environment, "run", str(recipe), "settings.device=cpu"), log.read_text()
    assert ended == 0, told
    assert "report.html" in told
