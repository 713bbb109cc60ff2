"""Probes: a planted feature is found, shuffled labels are at chance, and what cannot be measured says why."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from stillroom.errors import DataError
from stillroom.lenses.labels import Target, inputs, lengths, operand, operations, values
from stillroom.lenses.ledger import candidates
from stillroom.lenses.probes import Bench, ProbesConfig, look
from stillroom.lenses.probing import fit, one_hot
from stillroom.lenses.silent import Silent, read_silent
from stillroom.lenses.subjects import Subjects
from stillroom.records import Finding, Problem
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


def told(control: np.ndarray, kinds: list[str]) -> dict[str, set[int]]:
    return {kind: {int(label) for label, own in zip(control, kinds, strict=True) if own == kind} for kind in kinds}


def test_a_control_task_labels_each_type_once_and_alike_in_all_splits() -> None:
    """Eight values need more types than the operand, 1 or 2, makes: the number before it is a part of the type."""
    rows = [problem(f"{i}", (f"{i % 4} + {i // 4 % 2 + 1}", i % 8)) for i in range(48)]
    splits = {"train": rows[:24], "test": rows[24:]}
    (first,) = values(student(), splits, candidates(student(), rows), 0)
    assert ([first.name, first.step, first.is_answer], first.one_class()) == (["value 1", 0, True], False)
    by_type = told(np.concatenate([*first.controls.values()]), [p.steps[0].expression for p in rows])
    assert {len(labels) for labels in by_type.values()} == {1}
    assert len(by_type) == 8
    by_operand = told(np.concatenate([*first.controls.values()]), [operand(p, 0) for p in rows])
    assert min(map(len, by_operand.values())) > 1
    control = first.control()
    assert control.labels["test"].tolist() == first.controls["test"].tolist() != first.labels["test"].tolist()


def test_two_classes_are_few_enough_for_types_of_the_operand_alone() -> None:
    rows = [problem(f"{i}", (f"{i % 9} {'+-'[i % 2]} {i // 2 % 4}", i)) for i in range(40)]
    (first,) = operations({"train": rows[:20], "test": rows[20:]}, 0)
    by_operand = told(np.concatenate([*first.controls.values()]), [operand(p, 0) for p in rows])
    assert {len(labels) for labels in by_operand.values()} == {1}
    flat = [problem(f"{i}", ("1 + 1", i % 3)) for i in range(9)]  # no number tells one from another: all are one type
    (one,) = values(student(), {"train": flat, "test": flat}, candidates(student(), flat), 0)
    assert one.control().one_class()


def test_labels_are_told_from_every_problem() -> None:
    problems, one = sums(12), student()
    first, last = values(one, {"train": problems[:6], "test": problems[6:]}, candidates(one, problems), 0)
    assert (first.is_answer, last.is_answer) == (False, True)
    assert first.labels["train"][1:].tolist() == last.labels["train"][:-1].tolist()  # i + 1, then 1 more
    mixed = last.shuffled(0)
    assert sorted(mixed.labels["train"]) == sorted(last.labels["train"])
    assert mixed.labels["train"].tolist() != last.labels["train"].tolist()
    assert mixed.labels["test"] is last.labels["test"]
    assert one_hot(np.array([1, -1]), 3).tolist() == [[0, 1, 0], [0, 0, 0]]
    known = [problem("a", ("2 + 3", 5), question="Ann has 2 and 3"), problem("b", ("2 * 4", 8), question="2 and 4")]
    assert inputs(known, known).tolist() == [[0, 1, 1, 1, 0], [1, 0, 1, 0, 1]]  # 0 *, 0 +, 0 2, 1 3, 1 4


def test_the_commonest_label_is_training_s() -> None:
    target = Target("value 1", 3, {"train": np.array([2, 0, 2, -1, -1, -1]), "test": np.array([2, 0, -1, 0])}, {})
    assert target.commonest().tolist() == [True, False, False, False]


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
        "commonest value", "shuffled labels", "base", "untrained", "input alone", "answer alone",
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


def chosen(found: list[Finding], metric: str) -> Finding:
    return next(f for f in found if f.subject == "s" and f.metric == f"{metric}, chosen on validation")


def test_accuracy_is_tested_against_references_and_the_control_task_is_a_measure_of_its_own() -> None:
    """What the number 0 … 8 says is as easy to learn by heart as the value: nothing is selective, and all is read."""
    found = look(ProbesConfig(), people(60))
    grid = [f for f in found if f.metric == "value 1 accuracy" and f.subject == "s"]
    assert {tuple(n.name for n in f.nulls) for f in grid} == {("commonest value",)}
    test = [int(p.steps[0].value) for p in people(60).problems["test"]]
    common = sum(value == 10 for value in test)  # 60 training problems of nine values: the first six are commonest
    assert {f.nulls[0].value for f in grid} == {common / 20}
    best = next(f for f in grid if f.value == 1)
    assert best.p == pytest.approx(
        0.5 ** (20 - common)
    )  # right in all, and the commonest value's in none of the others
    assert best.adjusted is not None
    assert best.adjusted >= best.p
    first = chosen(found, "value 1 accuracy")
    assert (first.nulls[0].value, first.p) == (1, 1)  # the hardest: as right as the probe, so nothing is tested
    assert (
        chosen(found, "value 1 selectivity").value
        == chosen(found, "value 1 accuracy").value - chosen(found, "value 1 accuracy of the control").value
        == pytest.approx(0)
    )
    assert [n.value for n in chosen(found, "value 1 selectivity").nulls] == [0]


def test_a_value_that_no_reference_tells_is_recovered_whatever_the_control_task_says() -> None:
    """The student's layer 0 is made to hold what the question says of nobody: half of the first value's range."""
    subjects = people(200)
    hidden = {split: [p.model_copy(update={"question": "Ann has 1 eggs and 1."}) for p in rows] for split, rows in
              subjects.problems.items()}  # fmt: skip
    student_s = subjects.students["s"]
    own = {split: read_silent(student_s, rows, 64) for split, rows in hidden.items()}
    silent = {
        split: one._replace(stream_LPBD=one.stream_LPBD + planted_in(rows, one))
        for (split, rows), one in zip(subjects.problems.items(), own.values(), strict=True)
    }
    among = candidates(student_s, subjects.problems["train"])
    asked = values(student_s, hidden, among, 0)[:1]
    found = [*Bench("s", student_s, hidden, silent, {"base": own, "untrained": own}, asked, among, 0).findings()]
    best = chosen(found, "value 1 accuracy")
    assert best.value == 1
    assert best.low > max(n.high for n in best.nulls)
    assert best.p is not None
    assert best.p == max(p_of(best, null.value) for null in best.nulls) < 0.001
    assert [n.value for n in best.nulls] == sorted((n.value for n in best.nulls), reverse=True)
    assert chosen(found, "value 1 accuracy of the control").value == 1
    assert chosen(found, "value 1 selectivity").value == 0


def planted_in(rows: list[Problem], silent: Silent) -> torch.Tensor:
    """(1, 1, B, D): the axis of each problem's first value, in all places."""
    width = silent.stream_LPBD.shape[-1]
    return 5 * torch.eye(width)[[int(p.steps[0].value) % 9 for p in rows]][None, None]


def p_of(right: Finding, null: float) -> float:
    """One-sided sign test of a probe that is right in all against a reference that is right in some."""
    return float(0.5 ** round(right.n * (1 - null)))


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
