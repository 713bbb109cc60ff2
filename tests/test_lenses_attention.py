"""Attention: hand-worked masses, entropies and divergences; what is read is what the model attends to."""

import math

import pytest
import torch

from architectures import NAMES, tiny
from stillroom.errors import DataError
from stillroom.lenses.attention import (
    JSD,
    RESULTS,
    AttentionConfig,
    divergence,
    entropy,
    look,
    mass,
    queries,
    read,
    shared,
)
from stillroom.lenses.measures import paired
from stillroom.lenses.patterns import PATTERN, typical
from stillroom.lenses.selection import CHOSEN
from stillroom.lenses.subjects import Subjects
from stillroom.lenses.texts import texts
from stillroom.students import Manner, Student
from toys import problem, student, sums, tokenizer


def heads(*rows: list[float]) -> torch.Tensor:
    """One layer, one head, a query a row."""
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def test_masses_and_entropies_are_hand_worked() -> None:
    weights = heads([0.5, 0.25, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25])
    assert mass(weights, [1, 2]).item() == pytest.approx(0.5)  # (0.5 + 0.5) / 2
    assert mass(weights, [0]).item() == pytest.approx(0.375)
    assert entropy(weights).item() == pytest.approx(1.75)  # (1.5 + 2) / 2 bits
    assert entropy(heads([1.0, 0.0])).item() == 0


def test_divergences_are_hand_worked() -> None:
    one, two = heads([1.0, 0.0]), heads([0.0, 1.0])
    assert divergence(one, one).item() == 0
    assert divergence(one, two).item() == pytest.approx(1)
    half = heads([0.5, 0.5])  # middle 3/4, 1/4: its entropy less the half of one bit
    middle = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert divergence(one, half).item() == pytest.approx(middle - 0.5)
    assert divergence(one, half).item() == pytest.approx(divergence(half, one).item())


def test_the_paired_test_is_the_exact_sign_test() -> None:
    assert paired([1, 1, 1, 0, 1], [0, 0, 0, 1, 1]) == pytest.approx(10 / 16)  # 3 against 1: 2 · (1 + 4) / 16
    assert paired([1.0, 2.0], [1.0, 2.0]) == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_is_what_the_model_attends_to(name: str) -> None:
    """Padded in a batch as alone; every query sees itself and what is before it."""
    words = tokenizer()
    one = Student(tiny(name, len(words)), words, Manner(pauses=2))
    rows = texts(one, [*sums(2), problem("b", ("1 + 1", 2), question="Ann has 3 and 1 and 2 eggs and eggs.")])
    for text, found in zip(rows, read(one, rows, 3), strict=True):
        told = one.model(input_ids=torch.tensor([text.ids]), output_attentions=True).attentions
        alone = torch.stack(told)[:, 0, :, -1:].double()
        torch.testing.assert_close(found.weights["answer"], alone, rtol=0, atol=1e-5)


def test_results_are_read_where_a_value_follows() -> None:
    one = student()
    (text,) = texts(one, sums(3)[2:], worked=True)
    found = queries(one, text)
    assert [one.tokenizer.decode([text.ids[at + 1]]) for at in found[RESULTS]] == [" 3", " 4"]
    assert found["answer after steps"] == [len(text.ids) - 1]


def test_texts_of_two_manners_share_the_positions_of_their_common_words() -> None:
    """Two pauses more: the same weights elsewhere, and one place for what only one of them has."""
    plain, pausing = student(), student(pauses=2)
    one, two = (read(s, texts(s, sums(1)), 2)[0] for s in (plain, pausing))
    short, long = shared(one, "answer"), shared(two, "answer")
    assert short.shape == long.shape
    assert short[..., -1].abs().max() == 0
    torch.testing.assert_close(long[..., -1], mass(two.weights["answer"], two.text.spans["pauses"])[..., None])
    torch.testing.assert_close(long.sum(-1), torch.ones_like(long.sum(-1)), rtol=0, atol=1e-5)


def test_a_student_beside_itself_differs_nowhere() -> None:
    splits = {"validation": sums(5), "test": sums(9)[4:]}
    people = {"base": student(), "same": student(), "other": student(seed=5), "twin": student(seed=6)}
    found = look(AttentionConfig(), Subjects(people, {"twin": "other"}, splits))
    jsd = [f for f in found if f.metric.startswith(JSD)]
    assert {f.value for f in jsd if (f.reference, f.subject) == ("base", "same")} == {0.0}
    other = [f for f in jsd if (f.reference, f.subject) == ("base", "other")]
    assert all(f.value > 0 for f in other)
    names = ["twin of other", "the next head of the layer", "self-diff"]
    assert all([null.name for null in f.nulls] == names for f in other)
    assert all(f.nulls[-1].value == 0 for f in other)
    (chosen,) = [f for f in other if f.metric == JSD + CHOSEN and f.position == "answer"]
    assert chosen.p is not None
    assert "twin" not in {f.subject for f in found} | {f.reference for f in found}
    assert {f.metric for f in found if f.subject == "base"} == {
        "mass on operands", "mass on operators", "mass on steps", "entropy in bits",
    }  # fmt: skip


def test_without_a_twin_a_head_is_tested_against_its_neighbour_and_not_against_nothing() -> None:
    splits = {"validation": sums(4), "test": sums(12)[4:]}
    found = look(AttentionConfig(), Subjects({"base": student(), "s": student(seed=5)}, {}, splits))
    tested = [f for f in found if f.metric == JSD and f.p is not None]
    assert all(f.nulls[0].name == "the next head of the layer" for f in tested)
    assert any(f.low > f.nulls[-1].high and f.p > 0.05 for f in tested)  # further than from itself, not than the next


def test_attention_that_is_no_distribution_is_refused() -> None:
    one = student()
    one.model.model.layers[0].self_attn.q_proj.weight.data[:] = torch.nan
    with pytest.raises(DataError, match="do not sum to one"):
        read(one, texts(one, sums(2)), 2)


def test_a_pattern_is_told_token_by_token_beside_the_reference() -> None:
    rows = sums(4)
    told = look(AttentionConfig(problems=4), Subjects({"base": student(), "s": student(seed=1, pauses=2)}, {},
                                                     {"validation": rows[:2], "test": rows[2:]}))  # fmt: skip
    drawn = [f for f in told if f.metric == PATTERN]
    chosen = next(f for f in told if f.metric.endswith("chosen on validation") and f.position == "answer")
    assert {(f.subject, f.reference, f.layer, f.module) for f in drawn} == {("s", "base", chosen.layer, chosen.module)}
    assert sum(f.value for f in drawn) == pytest.approx(1)
    assert sum(null.value for f in drawn for null in f.nulls if null.name == "base") == pytest.approx(1)
    assert [len(f.nulls) for f in drawn].count(1) == 2  # the pauses, which the base has not
    assert drawn[0].position.startswith("1 ")
    assert all(f.nulls[0].value == pytest.approx(1 / len(drawn)) for f in drawn)


def test_what_is_drawn_is_typical() -> None:
    assert typical([0.5, 0.1, 0.9]) == 0
    assert typical([0.2]) == 0
