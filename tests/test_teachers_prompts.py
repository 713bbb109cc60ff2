"""The shipped prompts keep their own contract: finer levels say more, every example is right, one form is asked for."""

import re
from itertools import pairwise, product

import pytest
import yaml

from stillroom.curriculum.compliance import SENTENCE, STEP
from stillroom.errors import UsageError
from stillroom.records import Problem
from stillroom.tasks.answers import KINDS, grade
from stillroom.teachers import prompts
from stillroom.teachers.prompts import FORMATS, LEVELS, contract, example, format_named, messages

CELLS = list(product(prompts.KINDS, FORMATS))
FORMULA = re.compile(r"\$([^$]*=[^$]*)\$")
MOST = {1: 1, 5: 2, 6: 3}
"""Sentences of an item (level 1: of the solution, a sub-question, a rephrasing) at most, questions not counted."""
EQUATION = re.compile(r"(?<![\w$^])(\d+(?: [-+*/] \d+)+) = (\d+)")


def gold(kind: str) -> tuple[str, tuple[str, ...]]:
    data = prompts._file(kind)
    return data["answer"], tuple(data.get("choices", ()))


def test_every_kind_that_the_grader_knows_has_examples() -> None:
    assert set(prompts.KINDS) == set(KINDS)


@pytest.mark.parametrize(("kind", "format"), CELLS)
def test_a_finer_level_says_more(kind: str, format: str) -> None:
    words = [len(example(kind, level, format)[1].split()) for level in LEVELS]
    assert all(a < b for a, b in pairwise(words)), words


@pytest.mark.parametrize(("kind", "format"), CELLS)
def test_every_example_ends_in_its_gold_and_reckons_rightly(kind: str, format: str) -> None:
    for level in LEVELS:
        solution = example(kind, level, format)[1]
        answer, choices = gold(kind)
        assert solution.splitlines()[-1] == f"The answer is {answer}"
        assert grade(kind, answer, solution, choices).correct
        for left, right in EQUATION.findall(solution):
            assert eval(left) == int(right), (left, right)


def test_formulas_of_the_math_examples_hold() -> None:
    values = {"x": 5, "y": 25}  # what the question defines, and what the symbolic examples name
    checked = 0
    for format, level in product(FORMATS, LEVELS):
        for formula in FORMULA.findall(example("math", level, format)[1]):
            sides = {eval(re.sub(r"(?<=\d)x", "*x", side).replace("^", "**"), values) for side in formula.split("=")}
            assert len(sides) == 1, (format, level, formula)
            checked += 1
    assert checked > 60


def statements(text: str) -> int:
    """Sentences that are no questions."""
    return sum(1 for one in SENTENCE.split(STEP.sub("", text)) if one.strip() and not one.strip().endswith("?"))


@pytest.mark.parametrize(("kind", "format"), CELLS)
def test_examples_keep_to_the_extent_of_their_level(kind: str, format: str) -> None:
    solutions = {level: example(kind, level, format)[1].rpartition("\n")[0] for level in LEVELS}
    asked_for = {"least-to-most": solutions[1].count("?"), "rephrase-and-respond": 2}.get(format, 1)
    assert statements(solutions[1]) <= MOST[1] * asked_for
    items = {level: solutions[level].splitlines() for level in (5, 6)}
    for level in (5, 6):
        assert all(statements(item) <= MOST[level] for item in items[level])
    for level in (2, 3, 4):  # one sentence a step, at level 4 two; level 5 has an item for each step
        assert statements(solutions[level]) <= len(items[5]) * (2 if level == 4 else 1)


@pytest.mark.parametrize("kind", ["numeric", "math"])
def test_results_are_stated_from_level_two_on(kind: str) -> None:
    for format, level in product(FORMATS, LEVELS):
        reasons = example(kind, level, format)[1].rpartition("\n")[0]
        assert bool(re.search(rf"\b{gold(kind)[0]}\b", reasons)) == (level > 1), (format, level)


@pytest.mark.parametrize("kind", prompts.KINDS)
def test_levels_five_and_six_are_numbered_and_six_checks(kind: str) -> None:
    for format in FORMATS:
        for level in (5, 6):
            lines = example(kind, level, format)[1].splitlines()[:-1]
            assert [line.split(".")[0] for line in lines] == [str(i) for i in range(1, len(lines) + 1)]
        assert re.search(r"check|can that be right", lines[-1], re.IGNORECASE)


@pytest.mark.parametrize("kind", prompts.KINDS)
def test_formats_show_in_their_examples(kind: str) -> None:
    for level in LEVELS:
        assert "?" in example(kind, level, "least-to-most")[1]
        assert re.search(r"in short|in other words", example(kind, level, "rephrase-and-respond")[1], re.IGNORECASE)
        assert re.search(r"\b[Ll]et\b|→|≤", example(kind, level, "symbolic")[1])


def test_a_chat_holds_contract_example_and_question_and_nothing_unfilled() -> None:
    asked = Problem(task="toy", id="a", question="How many {eggs}?", answer="secret 42", kind="numeric")
    system, shown, solved, question = messages(asked, 3, "bsm")
    assert "Granularity 3 of 6" in system["content"]
    assert contract(3)["states"] in system["content"]
    assert "sub-questions" in system["content"]
    assert "{" not in system["content"]
    assert [m["role"] for m in (system, shown, solved, question)] == ["system", "user", "assistant", "user"]
    assert question["content"] == "How many {eggs}?"
    assert "secret" not in yaml.dump([system, shown, solved, question])


def test_unknown_levels_and_formats_are_named() -> None:
    with pytest.raises(UsageError, match="granularity is 7; expected 1"):
        contract(7)
    with pytest.raises(UsageError, match="did you mean 'plain'"):
        format_named("plan")
