"""Probes: a planted feature is found, shuffled labels are at chance, and what cannot be measured says why."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from stillroom.errors import DataError
from stillroom.lenses.labels import inputs, lengths, operand, operations, values
from stillroom.lenses.ledger import candidates
from stillroom.lenses.probes import ProbesConfig, look
from stillroom.lenses.probing import fit, one_hot
from stillroom.lenses.subjects import Subjects
from stillroom.records import Problem
from stillroom.stats import wilson
from toys import problem, student, sums

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 300)
ROWS = RNG.normal(size=(300, 8)) + 3 * one_hot(LABELS, 8) @ np.linalg.qr(RNG.normal(size=(8, 8)))[0]
GROUPS = [str(i) for i in range(300)]


def accuracy(labels: np.ndarray) -> int:
    probe = fit(ROWS[:200], one_hot(labels[:200], 3), GROUPS[:200])
    return int((probe.scores(ROWS[200:]).argmax(1) == labels[200:]).sum())


def test_a_planted_linear_feature_is_found_and_shuffled_labels_are_at_chance() -> None:
    assert accuracy(LABELS) > 90
    told = wilson(accuracy(np.random.default_rng(1).permutation(LABELS)), 100)
    assert told.low < 1 / 3 < told.high


def test_no_group_stands_on_both_sides_of_the_cross_validation() -> None:
    """Ten rows of one group are copies with a label of their own: held out by row, the weakest ridge would be best."""
    rows, labels = np.repeat(RNG.normal(size=(30, 40)), 10, axis=0), np.repeat(RNG.integers(0, 2, 30), 10)
    strong, weak = 1e6, 1e-6
    apart = fit(rows, one_hot(labels, 2), [str(i // 10) for i in range(300)], (weak, strong))
    mixed = fit(rows, one_hot(labels, 2), [str(i) for i in range(300)], (weak, strong))
    assert (apart.strength, mixed.strength) == (strong, weak)


def test_a_probe_is_scikit_learn_s_ridge_on_standardised_rows() -> None:
    probe = fit(ROWS, one_hot(LABELS, 3), GROUPS, (7.0,))
    theirs = Ridge(alpha=7.0).fit((ROWS - ROWS.mean(0)) / ROWS.std(0), one_hot(LABELS, 3))
    asked = RNG.normal(size=(5, 8))
    assert probe.scores(asked) == pytest.approx(theirs.predict((asked - ROWS.mean(0)) / ROWS.std(0)), abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "match"), [(ROWS[:8], "8 samples for 8 dimensions"), (np.full((20, 2), np.nan), "NaN or infinity")]
)
def test_what_cannot_be_fitted_is_refused(rows: np.ndarray, match: str) -> None:
    with pytest.raises(DataError, match=match):
        fit(rows, np.ones((len(rows), 1)), GROUPS[: len(rows)])


def test_a_control_task_labels_operands_alike_in_all_splits() -> None:
    problems = sums(12)
    one = student()
    splits = {"train": problems[:6], "test": problems[6:]}
    first, last = values(one, splits, candidates(one, problems), 0)
    assert operand(problems[3], 0) == "1"
    assert len({*first.controls["train"], *first.controls["test"]}) == 1  # all of them add 1
    assert ([first.name, first.step, first.is_answer], last.is_answer) == (["value 1", 0, False], True)
    assert first.labels["train"][1:].tolist() == last.labels["train"][:-1].tolist()  # i + 1, then 1 more
    assert one_hot(np.array([1, -1]), 3).tolist() == [[0, 1, 0], [0, 0, 0]]
    known = [problem("a", ("2 + 3", 5), question="Ann has 2 and 3"), problem("b", ("2 * 4", 8), question="2 and 4")]
    assert inputs(known, known).tolist() == [[0, 1, 1, 1, 0], [1, 0, 1, 0, 1]]  # 0 *, 0 +, 0 2, 1 3, 1 4


def test_operations_and_numbers_of_steps_are_asked_for() -> None:
    rows = [problem("a", ("2 + 3", 5), ("5 * 2", 10)), problem("b", ("4 - 1", 3)), problem("c", ("4 + 1", 5))]
    splits = {"train": rows, "test": rows[:1]}
    (first,) = operations({"train": rows[1:], "test": rows[1:2]}, 0)
    assert (first.name, first.labels["train"].tolist(), first.step) == ("operation 1", [1, 0], None)
    count, final = lengths(splits, 0)
    assert (count.name, count.classes, count.labels["train"].tolist()) == ("number of steps", 2, [1, 0, 0])
    assert (final.name, final.labels["train"].tolist(), final.labels["test"].tolist()) == (
        "step 1 is final", [0, 1, 1], [0],
    )  # fmt: skip


def test_how_many_steps_there_are_is_found_where_the_question_says_so() -> None:
    def told(i: int) -> Problem:
        start, two = i // 2 % 9, bool(i % 2)
        steps = ((f"{start} + 1", start + 1), *(((f"{start + 1} + 1", start + 2),) if two else ()))
        return problem(f"{i}", *steps, question=f"Ann has {start} eggs and gets 1{' and 1' if two else ''}.")

    rows = [told(i) for i in range(100)]
    people = Subjects({"base": student()}, {}, {"train": rows[:60], "validation": rows[60:80], "test": rows[80:]})
    found = {f.metric: f for f in look(ProbesConfig(), people) if f.metric.endswith("accuracy, chosen on validation")}
    for metric in ("number of steps accuracy", "step 1 is final accuracy"):
        told_so = found[f"{metric}, chosen on validation"]
        assert told_so.value == 1
        assert next(n for n in told_so.nulls if n.name == "shuffled labels").high < 1


def people(count: int) -> Subjects:
    """Numbers are tokens, so a value that is the question's number plus one is linear in what layer 0 holds of it."""
    rows = [
        problem(f"{i}", (f"{i % 9} + 1", i % 9 + 10), (f"{i} + 1", i % 5 + 3), question=f"Ann has {i % 9} eggs and 1.")
        for i in range(count + 40)
    ]
    return Subjects(
        {"base": student(), "s": student(seed=1)}, {},
        {"train": rows[:count], "validation": rows[count : count + 20], "test": rows[count + 20 :]},
    )  # fmt: skip


def test_a_value_that_is_a_function_of_a_number_is_found_and_the_other_is_not() -> None:
    found = look(ProbesConfig(), people(60))
    first = next(f for f in found if f.subject == "s" and f.metric == "value 1 accuracy, chosen on validation")
    assert first.value == 1
    assert {n.name for n in first.nulls} == {
        "control task", "commonest value", "shuffled labels", "base", "untrained", "input alone", "answer alone",
    }  # fmt: skip
    nulls = {n.name: n for n in first.nulls}
    assert (
        nulls["untrained"].value == nulls["input alone"].value == 1
    )  # the number itself says it: no sign of computing
    assert nulls["shuffled labels"].high < first.low
    second = next(f for f in found if f.subject == "s" and f.metric == "value 2 accuracy, chosen on validation")
    assert second.low < 0.5
    assert not any("answer" in n.name for n in second.nulls)  # the last value is the answer
    curve = [f for f in found if "1/8 of the samples" in f.metric]
    assert curve
    assert all("7 samples for 16 dimensions" in f.invalid or "8 samples for 16" in f.invalid for f in curve)
    assert all(f.invalid or (f.nulls and f.low <= f.value <= f.high) for f in found)


def test_too_few_problems_and_one_class_are_marked_so() -> None:
    few = look(ProbesConfig(), people(10))
    assert len(few) == 2
    assert all("10 training problems for 16 dimensions" in f.invalid and np.isnan(f.value) for f in few)
    same = people(60)
    flat = [p.model_copy(update={"steps": (p.steps[0].model_copy(update={"value": "3"}), p.steps[1])}) for p in
            same.problems["train"]]  # fmt: skip
    found = look(ProbesConfig(), Subjects(same.students, {}, {**same.problems, "train": flat}))
    assert {f.invalid for f in found if f.metric == "operation 1 accuracy"} == {
        "operation 1 is the same in all training problems: one class tells nothing"
    }
    assert {f.invalid for f in found if f.metric == "value 1 accuracy"} == {
        "value 1 is the same in all training problems: one class tells nothing"
    }


def test_fitting_is_the_same_twice() -> None:
    one, two = (fit(ROWS, one_hot(LABELS, 3), GROUPS).scores(ROWS[:3]) for _ in range(2))
    assert torch.equal(torch.from_numpy(one), torch.from_numpy(two))
