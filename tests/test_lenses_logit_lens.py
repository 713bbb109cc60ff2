"""Logit lens: at the last layer it is the model's own output, and it counts only what can be told apart."""

import pytest
import torch

from stillroom.lenses.logit_lens import (
    TOP,
    LogitLensConfig,
    Reading,
    _findings,
    depth,
    look,
    readings,
    tellable,
    top_tokens,
)
from stillroom.lenses.subjects import Subjects
from stillroom.records import Problem
from stillroom.stats import wilson
from toys import problem, student, sums

QUESTIONS = [p.question for p in sums(7)] + ["Ann has 3."]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pauses", [0, 2])
def test_the_last_layer_ranks_as_the_model_does(kind: str, pauses: int) -> None:
    one = student(kind, pauses=pauses)
    found = top_tokens(one, QUESTIONS, 3)
    assert tuple(found.shape) == (3, 2, len(QUESTIONS), TOP)
    answer = one.tokenizer("The answer is", add_special_tokens=False)["input_ids"]
    for row, question in enumerate(QUESTIONS):
        prompt = one.prompt(question)
        logits = one.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
        assert found[-1, 0, row].tolist() == logits[len(prompt) - 1].topk(TOP).indices.tolist()
        assert found[-1, 1, row].tolist() == logits[-1].topk(TOP).indices.tolist()
    assert not torch.equal(found[0], found[-1])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_batches_change_nothing(kind: str) -> None:
    one = student(kind)
    assert torch.equal(top_tokens(one, QUESTIONS, 1), top_tokens(one, QUESTIONS, 8))


def test_only_what_can_be_told_apart_counts() -> None:
    first = problem("a", ("2 + 3", 5), ("5 + 4", 9), question="2 and 3 and 4")
    in_question = problem("b", ("1 + 6", 7), ("7 + 1", 8), question="1 and 6 and 7")
    is_answer = problem("c", ("4 + 4", 8), ("8 * 1", 8), question="4 and 1")
    last = problem("d", ("3 + 3", 6), ("6 + 5", 11), question="3 and 5")
    problems = [first, in_question, is_answer, last]
    assert tellable(problems, 0) == [(0, "5", "7"), (3, "6", "7")]
    # first: 5 is read, 7 of the next problem is the null; last: 5 stands in its question, so 7 again
    assert tellable(problems, 1) == [(0, "9", "8"), (1, "8", "11"), (2, "8", "11"), (3, "11", "9")]
    assert tellable([first], 0) == []  # nobody's value to compare with
    assert tellable([first, first], 0) == []


def test_a_null_is_right_for_neither_value_nor_answer() -> None:
    problems = [problem(f"{i}", ("1 + 1", v), ("x", w), question=q) for i, (v, w, q) in enumerate(
        [(5, 9, "2"), (9, 3, "1"), (2, 8, "6"), (5, 7, "0"), (12, 30, "20")]
    )]  # fmt: skip
    for step in (0, 1):
        for row, value, other in tellable(problems, step):
            assert value == problems[row].steps[step].value
            assert other not in (value, problems[row].answer, problems[row].question)
    assert tellable(problems, 0)[0] == (0, "5", "12")  # 9 is its answer, 2 its question, 5 its own value


def test_readings_count_hits_and_nulls() -> None:
    one = student()
    tokens = {n: one.tokenizer(f" {n}", add_special_tokens=False)["input_ids"][0] for n in range(9)}
    top = torch.zeros((1, 2, 3, TOP), dtype=torch.long)
    top[0, 0, 0, 4], top[0, 0, 2, 0], top[0, 1, 2, 1] = tokens[5], tokens[6], tokens[7]
    found = readings(one, top, [(0, "5", "6"), (2, "7", "6")])
    assert found == [[Reading(1, 1, 2), Reading(1, 0, 2)]]


def test_the_cell_is_chosen_on_validation_and_reported_on_test() -> None:
    validation = [[Reading(5, 4, 10), Reading(9, 9, 10)], [Reading(7, 1, 10), Reading(6, 3, 10)]]
    test = [[Reading(20, 2, 40), Reading(39, 0, 40)], [Reading(10, 4, 40), Reading(30, 3, 40)]]
    *grid, chosen = _findings("s", 0, validation, test)
    assert [(f.layer, f.position, f.value) for f in grid] == [
        (0, "question end", 0.5), (0, "answer", 39 / 40), (1, "question end", 0.25), (1, "answer", 0.75),
    ]  # fmt: skip
    assert (chosen.layer, chosen.position, chosen.metric) == (
        1,
        "question end",
        "value 1 in top 5, chosen on validation",
    )
    assert (chosen.value, chosen.low, chosen.high) == wilson(10, 40)
    assert (chosen.n, chosen.nulls[0].name) == (40, "another problem's value")
    assert (chosen.nulls[0].value, chosen.nulls[0].high) == (0.1, wilson(4, 40).high)


def test_looking_reads_the_longest_problems_of_every_student_but_twins() -> None:
    people = {"base": student(), "normal": student(seed=1), "twin": student(seed=2)}
    splits = {"validation": [problem("v", ("1 + 1", 2)), *sums(6)], "test": sums(12)[6:]}
    found = look(LogitLensConfig(batch_size=4), Subjects(people, {"twin": "normal"}, splits))
    assert {f.subject for f in found} == {"base", "normal"}
    assert {f.reference for f in found if f.subject == "normal"} == {"base"}
    assert len(found) == 2 * 2 * (3 * 2 + 1)  # students, values, cells and the chosen one
    assert all(f.n == 6 and len(f.nulls) == 1 and f.low <= f.value <= f.high for f in found)


def test_the_depth_is_the_largest_that_enough_problems_have() -> None:
    def steps(*counts: int) -> list[Problem]:
        return [problem(f"{n} {i}", *[("1 + 1", 2)] * n) for n, count in enumerate(counts, 1) for i in range(count)]

    bare = sums(1)[0].model_copy(update={"steps": ()})
    assert depth({"validation": [bare], "test": steps(3)}) == 0
    assert depth({"validation": steps(40, 20, 3), "test": steps(90, 20, 30)}) == 2
    assert depth({"validation": steps(4, 6), "test": steps(9, 5, 2)}) == 2  # nowhere enough: the commonest
