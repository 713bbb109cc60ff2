"""Interventions on a student whose mechanism is known find it: where the value is, what carries it, what does not."""

import numpy as np
import pytest
import torch

from planted import WIDTH, pairs, planted, told, without_reading
from stillroom.activations import Place, changed
from stillroom.lenses import ablation, attention, cross_model, grafting, logit_lens, probes, tracing
from stillroom.lenses.ablation import AblationConfig, ablated, means, units
from stillroom.lenses.cross_model import transplanted
from stillroom.lenses.grafting import PUT_IN, TAKEN_OUT, differences, grafted, parts
from stillroom.lenses.patches import Cell, cells, patched_runs, plain_runs, positions_of
from stillroom.lenses.patching import SITES, moved, patched_grid
from stillroom.lenses.selection import CHOSEN
from stillroom.lenses.solving import examine, solved
from stillroom.lenses.spectra import random_like
from stillroom.lenses.subjects import Subjects
from stillroom.lenses.texts import texts
from stillroom.lenses.trials import STREAM, trial, with_student
from stillroom.lenses.twins import random_twin

NUMBER, ANSWER = "number 1", "answer"
PROBLEMS = {"validation": told(2, 8), "test": told(8, 18)}


def place(layer: int, site: str = STREAM) -> Place:
    return Place(layer, site)


def test_the_planted_student_solves_what_it_was_made_for() -> None:
    exam = examine(planted(), told(), 8, 4)
    assert all(exam.right)
    assert {len(answer) for answer in exam.answers} == {6}


def test_patching_finds_where_the_value_is_and_how_it_travels() -> None:
    one = trial(planted(), pairs())
    assert one is not None
    grid = cells(2, SITES, positions_of(one.asked.texts))
    found = patched_grid(one, grid, 5)
    everywhere = {cell: np.mean(moved(one, after)) for cell, after in found.source.items()}
    carriers = {Cell(place(0), NUMBER), Cell(place(1), ANSWER), Cell(place(2), ANSWER)}
    carriers |= {Cell(place(1, "attention"), ANSWER)}
    assert {cell for cell, share in everywhere.items() if share == 1} == carriers
    assert all(share == 0 for cell, share in everywhere.items() if cell not in carriers)


def test_probes_the_logit_lens_and_patching_find_one_planted_value_in_one_place() -> None:
    """What attention brings to the last word is the answer: linear there, turned into its token by the head, and used.
    A student that cannot look holds nothing there. Before attention, nobody does."""
    people = {"base": without_reading(planted()), "normal": planted()}
    taught = [p.model_copy(update={"id": f"{p.id} {i}"}) for p in told(2, 18) for i in range(4)]
    subjects = Subjects(people, {}, {"train": taught, **PROBLEMS})
    for found, metric in (
        (probes.look(probes.ProbesConfig(), subjects), "value 2 accuracy"),
        (logit_lens.look(logit_lens.LogitLensConfig(), subjects), "value 2 probability"),
    ):
        at = {(f.subject, f.layer): f for f in found if f.metric == metric and f.position == ANSWER}
        beyond = {cell for cell, f in at.items() if f.low > f.nulls[0].high}
        assert beyond == {("normal", 1), ("normal", 2)}, metric
    one = trial(planted(), pairs())
    assert one is not None
    grid = patched_grid(one, [Cell(place(layer), ANSWER) for layer in (0, 1, 2)], 5)
    assert [np.mean(moved(one, after)) for after in grid.source.values()] == [0, 1, 1]


def test_on_a_random_twin_patching_moves_nothing_to_where_arithmetic_says() -> None:
    one = trial(planted(), pairs())
    assert one is not None
    twin = with_student(one, random_twin(one.asked.student))
    grid = cells(2, SITES, positions_of(one.asked.texts))
    found = patched_runs(twin.asked, twin.asked.student, twin.sources, grid, 32)
    before = plain_runs(twin.asked, 32)
    for after in found.values():
        assert sum(moved(one, after)) <= 2
        shift = after.differences() - before.differences()
        assert abs(shift.mean()) <= 4 * shift.std() / np.sqrt(len(shift)) + 1e-9


def test_tracing_finds_what_brings_the_answer_back() -> None:
    one = trial(planted(), pairs())
    assert one is not None
    grid = cells(2, (STREAM,), positions_of(one.asked.texts))
    found = tracing.trace(one, grid, 32, seed=0)
    best = {cell: at.own_N.mean() - at.other_N.mean() for cell, at in found.items()}
    assert best[Cell(place(1), ANSWER)] > 3 * abs(best[Cell(place(1), NUMBER)]) + 1e-4
    assert abs(best[Cell(place(2), "question end")]) < 1e-9
    assert found[Cell(place(2), "question end")].own_N == pytest.approx(0, abs=1e-9)


def test_a_student_that_cannot_read_answers_with_another_s_state() -> None:
    reader, blind = trial(planted(), pairs()), trial(without_reading(planted()), pairs())
    assert reader is not None
    assert blind is not None
    cell = Cell(place(1), ANSWER)
    same, other = transplanted(blind, reader, [cell, Cell(place(1), NUMBER)], 32)
    assert all(cross_model.right(blind, same[cell]))
    assert not any(cross_model.right(blind, other[cell]))
    assert not any(cross_model.right(blind, same[Cell(place(1), NUMBER)]))


def test_ablation_finds_the_only_part_that_matters() -> None:
    student = planted()
    exam = examine(student, told(), 8, 8)
    mean = means(student, exam, 5)
    left = {(u.layer, u.module): sum(ablated(student, exam, u, mean, 8)) for u in units(student)}
    assert left[1, "attention"] <= 1
    assert left[1, "layer"] <= 1
    assert all(left[2, module] == len(told()) for module in ("layer", "attention", "mlp", "head 1", "head 2"))
    assert left[1, "mlp"] == len(told())
    assert left[1, "head 1"] + left[1, "head 2"] < 2 * len(told())  # each head carries its half of the axes


def test_grafting_finds_the_part_that_was_learned() -> None:
    student, base = planted(), without_reading(planted())
    exam = examine(student, told(), 8, 8)
    base_weights = dict(base.model.named_parameters())
    before = {name: tensor.clone() for name, tensor in student.model.named_parameters()}
    difference = {n: d.detach() for n, d in differences(base_weights, dict(student.model.named_parameters())).items()}
    for part in parts(list(difference)):
        graft = {name: difference[name] for name in part.names}
        holds = part.layer == 1 and part.module in ("layer", "attention")
        put_in = sum(grafted(student, exam, difference, PUT_IN, graft, 8))
        left = sum(grafted(student, exam, difference, TAKEN_OUT, graft, 8))
        assert (put_in == len(told())) == holds
        assert (left <= 1) == holds
    random = {name: random_like(tensor, 0) for name, tensor in difference.items()}
    assert sum(grafted(student, exam, difference, PUT_IN, random, 8)) <= 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.model.named_parameters())


def test_the_lenses_report_it_with_their_nulls() -> None:
    people = {"base": without_reading(planted()), "normal": planted()}
    subjects = Subjects(people, {}, PROBLEMS)
    found = grafting.look(grafting.GraftingConfig(), subjects)
    put_in = next(f for f in found if f.metric == PUT_IN + CHOSEN)
    assert (put_in.layer, put_in.value, put_in.position) == (1, 1.0, "all")
    assert put_in.low > put_in.nulls[0].high
    assert put_in.p < 0.01
    found = ablation.look(AblationConfig(), subjects)
    worst = next(f for f in found if f.metric.endswith(CHOSEN) and f.subject == "normal")
    assert (worst.layer, worst.module in ("layer", "attention")) == (1, True)
    assert worst.high < worst.nulls[1].low
    found = cross_model.look(cross_model.CrossModelConfig(), subjects)
    cell = next(f for f in found if (f.layer, f.position) == (1, ANSWER) and f.metric == cross_model.RIGHT)
    assert cell.value > 0.8
    assert cell.adjusted < 0.05
    assert cell.low > cell.nulls[0].high


def test_attention_that_is_even_reads_as_even() -> None:
    student = planted()
    found = attention.look(attention.AttentionConfig(), Subjects({"base": student}, {}, PROBLEMS))
    for row in found:
        even = next(null for null in row.nulls if null.name == "even attention")
        assert row.value == pytest.approx(even.value, abs=1e-5)


def test_patching_a_run_with_itself_changes_no_bit() -> None:
    one = trial(planted(), pairs())
    assert one is not None
    plain = plain_runs(one.asked, 32)
    grid = cells(2, SITES, positions_of(one.asked.texts))
    for after in patched_runs(one.asked, one.asked.student, one.asked.texts, grid, 32).values():
        assert np.array_equal(after.right_N, plain.right_N)
    drowned = plain_runs(one.asked, 32, noised=3)
    for after in patched_runs(one.asked, one.asked.student, one.asked.texts, grid, 32, 3, noised_giver=True).values():
        assert np.array_equal(after.right_N, drowned.right_N)


def test_what_solves_is_what_greedy_decoding_says() -> None:
    """One pass counts what decoding gives under the same disturbance, in the same words: others do not count."""
    student = planted()
    exam = examine(student, told(), 8, 8)
    kept = torch.ones(WIDTH)
    kept[student.tokenizer(" 5 7 9", add_special_tokens=False)["input_ids"]] = 0
    shake = {place(1): lambda there: there * kept}
    with changed(student.model, shake):
        again = examine(student, told(), 8, 8)
        counted = solved(student, exam, 8)
    assert counted == [a == b for a, b in zip(again.answers, exam.answers, strict=True)]
    assert all(right for right, same in zip(again.right, counted, strict=True) if same)
    assert 0 < sum(counted) < len(counted)


def test_texts_are_those_of_the_student() -> None:
    student = planted()
    text = texts(student, told()[:1])[0]
    assert student.tokenizer.decode(text.ids) == "Ann has 2 eggs and gets 1 and 1.\nThe answer is"
