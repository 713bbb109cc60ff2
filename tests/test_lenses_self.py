"""A model beside itself: what compares two finds nothing, and what reads each alone reads the same of both."""

from pathlib import Path

import pytest
from safetensors.torch import save_file

from stillroom.lenses import LENSES
from stillroom.lenses.over_training import FIRST, OverTrainingConfig
from stillroom.lenses.selection import CHOSEN
from stillroom.lenses.subjects import Subjects
from stillroom.records import Finding
from stillroom.students import save
from toys import student, sums

SPLITS = {"train": sums(18), "validation": sums(3), "test": sums(6)[3:]}
DIFFERENCES = {
    "weights": "relative difference",
    "kl": "divergence (nats)",
    "representations": "relative norm of the difference",
    "attention": "Jensen–Shannon divergence in bits",
    "cross_model": "logit difference moved to the right answer",
}
ALONE = ("logit_lens", "tuned_lens", "probes", "patching", "tracing", "ablation")
Address = tuple[int | None, str, str, str]


def itself(name: str) -> list[Finding]:
    return LENSES[name].look(LENSES[name].config(), Subjects({"base": student(), "s": student()}, {}, SPLITS))


def values(found: list[Finding], who: str) -> dict[Address, float]:
    return {(f.layer, f.module, f.position, f.metric): f.value for f in found if f.subject == who}


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
    found = itself(name)
    own = values(found, "s")
    assert own
    assert own == pytest.approx(values(found, "base"), nan_ok=True)


def test_a_probe_of_the_base_itself_beats_no_base() -> None:
    """What is read off the reference is what is read off the student, so that nothing is established."""
    found = [f for f in itself("probes") if f.subject == "s" and f"accuracy{CHOSEN}" in f.metric]
    assert found
    for f in found:
        assert f.value == next(null.value for null in f.nulls if null.name == "base")
        assert f.p == 1


@pytest.mark.parametrize("lens", ["logit_lens", "kl"])
def test_over_training_nothing_changes_where_every_checkpoint_is_the_base(lens: str, tmp_path: Path) -> None:
    """What compares finds nothing, what reads alone reads what it reads of the base, and no update is the first."""
    save(student(), tmp_path)
    (tmp_path / "snapshots").mkdir()
    own = {f"model.{n}": p.detach().contiguous() for n, p in student().model.named_parameters()}
    for update in (2, 9):
        save_file(own, tmp_path / "snapshots" / f"step-{update}.safetensors")
    both = Subjects({"base": student(), "s": student()}, {}, SPLITS, folders={"s": tmp_path})
    found = LENSES["over_training"].look(OverTrainingConfig(lens={"name": lens}), both)
    once = [f for f in itself(lens) if f.subject == ("base" if lens == "logit_lens" else "s")]
    for update in (2, 9):
        then = {
            (f.layer, f.module, f.position, f.metric.removesuffix(f", update {update}")): f.value
            for f in found
            if f.metric.endswith(f", update {update}")
        }
        assert then == pytest.approx(
            {(f.layer, f.module, f.position, f"{lens}: {f.metric}"): f.value for f in once}, abs=1e-6, nan_ok=True
        )
    assert not any(f.metric.startswith(FIRST) for f in found)
