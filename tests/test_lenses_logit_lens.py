"""Logit lens: at the last layer it is the model's own output, and it counts only what can be told apart."""

import math

import pytest
import torch

from stillroom.lenses.ledger import Candidates, candidates
from stillroom.lenses.logit_lens import (
    TOP,
    LogitLensConfig,
    Reading,
    _cells,
    _one,
    depth,
    look,
    plain,
    read,
    standing,
    tellable,
)
from stillroom.lenses.reading import number_token, tokens
from stillroom.lenses.silent import read_silent
from stillroom.lenses.subjects import Subjects
from stillroom.records import Problem
from stillroom.stats import benjamini_hochberg, wilson
from toys import problem, student, sums

PROBLEMS = [*sums(7), problem("short", ("3 + 1", 4), question="Ann has 3 and gets 1 and 1.")]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pauses", [0, 2])
def test_the_last_layer_ranks_as_the_model_does(kind: str, pauses: int) -> None:
    one = student(kind, pauses=pauses)
    silent = read_silent(one, PROBLEMS, 3)
    among = candidates(one, PROBLEMS)
    asked = torch.arange(2).expand(len(PROBLEMS), 2) + number_token(one, "5")
    found = read(one, silent, asked, among, plain(one))
    for row, told in enumerate(PROBLEMS):
        prompt = one.prompt(told.question)
        logits = one.model(input_ids=torch.tensor([[*prompt, *tokens(one, "The answer is")]])).logits[0].detach()
        for place, at in (("question end", len(prompt) - pauses - 1), ("answer", -1)):
            cell = found.cells.index((2, place))
            likely = logits[at].softmax(0)
            for index, token in enumerate(asked[row].tolist()):
                assert found.ranks_CBS[cell, row, index] == 1 + (likely > likely[token]).sum()
                assert float(found.probabilities_CBS[cell, row, index]) == pytest.approx(float(likely[token]), rel=1e-4)
            assert found.scores_CBK[cell, row].tolist() == pytest.approx(likely[among.tokens].log().tolist(), abs=1e-4)
    assert not torch.equal(found.scores_CBK[found.cells.index((0, "answer"))], found.scores_CBK[-1])


def test_only_what_can_be_told_apart_counts() -> None:
    first = problem("a", ("2 + 3", 5), ("5 + 4", 9), question="2 and 3 and 4")
    in_question = problem("b", ("1 + 6", 7), ("7 + 1", 8), question="1 and 6 and 7")
    is_answer = problem("c", ("4 + 4", 8), ("8 * 1", 8), question="4 and 1")
    last = problem("d", ("3 + 3", 6), ("6 + 5", 11), question="3 and 5")
    problems = [first, in_question, is_answer, last]
    assert tellable(problems, 0) == [(0, "5", "7"), (3, "6", "7")]
    assert standing(problems, 0) == [(1, "7", "5"), (2, "8", "6")]  # the others are counted apart
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


def test_cells_count_hits_and_nulls_and_average_ranks() -> None:
    ranks = torch.tensor([[[1, 6], [5, 5], [8, 1]], [[1, 9], [1, 9], [1, 9]]])  # (C, B, value and other)
    reading = Reading([(0, "answer"), (1, "answer")], ranks, 1 / ranks, torch.zeros(2, 3, 1))
    found = {(f.layer, f.metric): f for f in _cells("logit_lens", "s", 0, reading, [(0, 2, 3), (1, 2, 3), (2, 2, 3)])}
    share = found[0, f"value 1 in top {TOP}"]
    assert (share.value, share.low, share.high) == wilson(2, 3)
    assert share.nulls[0].value == 2 / 3
    assert share.p == 0.75  # one pair above, one below: P(X >= 1) of two coins
    assert found[1, f"value 1 in top {TOP}"].p == 0.125  # three of three
    assert found[0, "value 1 rank"].value == pytest.approx(math.pow(1 * 5 * 8, 1 / 3))
    assert found[0, "value 1 rank"].nulls[0].value == pytest.approx(math.pow(6 * 5 * 1, 1 / 3))
    assert found[1, "value 1 probability"].value == 1
    assert all(f.n == 3 and f.low <= f.value <= f.high for f in found.values())


def test_one_cell_is_that_cell_alone() -> None:
    reading = Reading([(0, "a"), (1, "b")], *(torch.arange(2)[:, None, None] for _ in range(3)))
    assert _one(reading, 1).cells == [(1, "b")]
    assert _one(reading, 1).ranks_CBS.flatten().tolist() == [1]


def test_a_planted_value_is_found_and_its_cell_is_chosen_on_validation() -> None:
    """Embeddings carry the token itself: at layer 0 of a number, the lens with tied weights reads that number."""
    one = student("gpt2")  # its head is its embedding
    problems = [problem(f"{i}", ("1 + 1", i), question=f"Ann has 1 eggs and gets {i} and 1.") for i in range(2, 12)]
    bare = [p.model_copy(update={"question": p.question.replace(p.answer, "1")}) for p in problems]
    silent = read_silent(one, problems, 4)
    asked = torch.tensor([[number_token(one, p.answer)] for p in problems])
    with torch.no_grad():
        one.model.transformer.wpe.weight.zero_()
    silent = read_silent(one, problems, 4)
    found = read(one, silent, asked, Candidates([], []), plain(one))
    assert (found.ranks_CBS[found.cells.index((0, "number 2"))] == 1).all()
    blank = read(one, read_silent(one, bare, 4), asked, Candidates([], []), plain(one))
    assert (blank.ranks_CBS[blank.cells.index((0, "number 2"))] > 1).all()


def test_looking_reads_the_longest_problems_of_every_student_but_twins() -> None:
    people = {"base": student(), "normal": student(seed=1), "twin": student(seed=2)}
    splits = {"validation": [problem("v", ("1 + 1", 2)), *sums(6)], "test": sums(12)[6:]}
    found = look(LogitLensConfig(batch_size=4), Subjects(people, {"twin": "normal"}, splits))
    assert {f.subject for f in found} == {"base", "normal"}
    assert {f.reference for f in found if f.subject == "normal"} == {"base"}
    grid = [f for f in found if f.metric == f"value 1 in top {TOP}"]
    assert len(grid) == 2 * 3 * 5  # students, layers, places: three numbers, the question's end, the answer
    assert all(f.adjusted >= f.p for f in grid)
    chosen = [f for f in found if f.metric == f"value 1 in top {TOP}, chosen on validation"]
    assert [f.subject for f in chosen] == ["base", "normal"]
    ledger = [f for f in found if "AUROC" in f.metric]
    assert {n.name for f in ledger for n in f.nulls} == {
        "frequency of the value", "another problem's reading", "untrained",
    }  # fmt: skip
    assert all(f.n > 0 and f.nulls and f.low <= f.value <= f.high for f in found)


def test_a_grid_pays_for_its_own_cells_and_for_nothing_else() -> None:
    """What stands in the question is read by anyone: among the grid's tests it would make theirs look better."""
    rows = [problem(f"{i}", (f"{i} + 1", i + 1), (f"{i + 1} + 1", i + 2)) for i in range(12)]
    rows += [problem(f"told {i}", (f"{i} + 1", i + 1), ("1 + 1", 2), question=f"{i + 1}") for i in range(12)]
    found = look(LogitLensConfig(), Subjects({"base": student()}, {}, {"validation": rows, "test": rows[::-1]}))
    tested = [f for f in found if f.p is not None]
    grid = [f for f in tested if f.metric in (f"value 1 in top {TOP}", f"value 2 in top {TOP}")]
    assert [f.adjusted for f in grid] == benjamini_hochberg([f.p for f in grid])
    others = {f.metric.partition(", ")[2] for f in tested if f.adjusted is None}
    assert others == {"chosen on validation", "standing in the text"}
    assert len(tested) == len(grid) + 4  # of both values


def test_an_untrained_student_is_read_at_the_null() -> None:
    fresh = {"base": student(seed=5)}
    problems = [
        problem(f"{i}", (f"{i} + 1", (7 * i) % 17 + 3), (f"{i} + 1", (5 * i) % 13 + 5), question=f"Ann has {i} eggs.")
        for i in range(1, 20)
    ]
    splits = {"validation": problems, "test": problems[::-1]}
    found = look(LogitLensConfig(batch_size=8), Subjects(fresh, {}, splits))
    grid = [f for f in found if f.adjusted is not None and "chosen" not in f.metric]
    assert grid
    assert all(f.adjusted > 0.05 for f in grid)


def test_the_depth_is_the_largest_that_enough_problems_have() -> None:
    def steps(*counts: int) -> list[Problem]:
        return [problem(f"{n} {i}", *[("1 + 1", 2)] * n) for n, count in enumerate(counts, 1) for i in range(count)]

    bare = sums(1)[0].model_copy(update={"steps": ()})
    assert depth({"validation": [bare], "test": steps(3)}) == 0
    assert depth({"validation": steps(40, 20, 3), "test": steps(90, 20, 30)}) == 2
    assert depth({"validation": steps(4, 6), "test": steps(9, 5, 2)}) == 2  # nowhere enough: the commonest
