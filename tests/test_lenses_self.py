"""A model beside itself: what compares two finds nothing, and what reads each alone reads the same of both."""

import pytest

from stillroom.lenses import LENSES
from stillroom.lenses.subjects import Subjects
from stillroom.records import Finding
from toys import student, sums

SPLITS = {"train": sums(18), "validation": sums(3), "test": sums(6)[3:]}
DIFFERENCES = {
    "weights": "relative difference",
    "kl": "divergence (nats)",
    "representations": "relative norm of the difference",
    "attention": "Jensen–Shannon divergence in bits",
    "cross_model": "logit difference moved to the right answer",
}
ALONE = ("logit_lens", "tuned_lens", "patching", "tracing", "ablation")


def itself(name: str) -> list[Finding]:
    return LENSES[name].look(LENSES[name].config(), Subjects({"base": student(), "s": student()}, {}, SPLITS))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_compares_two_models_finds_no_difference(name: str) -> None:
    found = [f for f in itself(name) if f.metric.startswith(DIFFERENCES[name])]
    assert found
    assert all(f.subject == "s" and f.reference == "base" for f in found)
    assert [f.value for f in found] == pytest.approx([0] * len(found), abs=1e-6)


def test_grafting_nothing_changes_nothing() -> None:
    for f in itself("grafting"):
        assert f.value == next(null.value for null in f.nulls if null.name == "nothing grafted")


@pytest.mark.parametrize("name", ALONE)
def test_what_reads_each_model_alone_reads_the_same_of_both(name: str) -> None:
    base, own = ({}, {})
    for f in itself(name):
        (own if f.subject == "s" else base)[f.layer, f.module, f.position, f.metric] = f.value
    assert own
    assert own == pytest.approx(base, nan_ok=True)
