"""Tuned lens: it begins as the logit lens, undoes a planted turn, and leaves the last layer as it is."""

import pytest
import torch
from torch.nn import functional

from stillroom.errors import DataError
from stillroom.lenses.silent import read_silent
from stillroom.lenses.subjects import Subjects
from stillroom.lenses.tuned_lens import Map, TunedLensConfig, fit, fit_all, logits_of, look, tuned
from stillroom.students import Student
from toys import student, sums


def test_it_begins_as_the_logit_lens() -> None:
    hidden = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Map(16)(hidden), hidden)


@torch.no_grad()
def apart(one: Student, hidden: torch.Tensor, output: torch.Tensor) -> float:
    guess = functional.log_softmax(logits_of(one, hidden), -1)
    return float(functional.kl_div(guess, output, reduction="batchmean", log_target=True))


def test_a_planted_turn_is_undone() -> None:
    one = student()
    draw = torch.Generator().manual_seed(0)
    last = torch.randn(400, 16, generator=draw)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=draw)).Q
    output = functional.log_softmax(logits_of(one, last), -1).detach()
    before = apart(one, last @ turn, output)
    lens = fit(one, last @ turn, output, 60, 0.0)
    assert apart(one, lens(last @ turn), output) < 0.05 * before


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_last_layer_is_the_model_s_own_and_the_model_is_left_alone(kind: str) -> None:
    one = student(kind)
    before = {name: p.clone() for name, p in one.model.named_parameters()}
    wanted = {name for name, p in one.model.named_parameters() if p.requires_grad}
    silent = read_silent(one, sums(6), 4)
    maps = fit_all(one, silent, TunedLensConfig(iterations=5))
    assert len(maps) == 2
    hidden = silent.stream_LPBD[-1, -1]
    torch.testing.assert_close(tuned(one, maps)(2, hidden), logits_of(one, hidden).detach(), rtol=0, atol=1e-5)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in one.model.named_parameters())
    assert wanted == {name for name, p in one.model.named_parameters() if p.requires_grad}


def test_a_map_that_cannot_be_fitted_leaves_the_model_as_it_was() -> None:
    one = student()
    silent = read_silent(one, sums(6), 4)
    silent.stream_LPBD[0] = float("nan")
    with pytest.raises(DataError, match="tuned lens"):
        fit_all(one, silent, TunedLensConfig(iterations=5))
    assert all(p.requires_grad for p in one.model.parameters())


def test_findings_stand_beside_the_logit_lens() -> None:
    splits = {"train": sums(8), "validation": sums(6), "test": sums(12)[6:]}
    found = look(TunedLensConfig(iterations=5), Subjects({"base": student()}, {}, splits))
    nearer = [f for f in found if f.metric == "divergence from the output (nats)"]
    assert [f.layer for f in nearer] == [0, 1]
    assert all(f.value < f.nulls[0].value for f in nearer)
    assert {n.name for f in found if "AUROC" in f.metric for n in f.nulls} >= {"logit lens"}
