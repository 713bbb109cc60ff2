"""What is broken stops the loop, with its step, its term and its problems, before the weights take harm."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stillroom.errors import TrainingError
from stillroom.training import Batch, FitConfig, fit
from toys import workplace


class Loss(nn.Module):
    """The terms `good` and `bad`, of which the second follows the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, bad: Tensor) -> dict[str, Tensor]:
        return {"good": self.weight.square().mean(), "bad": self.weight.sum() * bad}


def batches(values):
    def batch(update: int, part: int, parts: int) -> Batch:
        number = update * parts + part
        counts = {"good": 1, "bad": 1}
        return Batch({"bad": torch.tensor(values(number))}, counts, (f"problem-{number}", f"other-{number}"))

    return batch


def config(**changes: object) -> FitConfig:
    return FitConfig(**{"updates": 6, "warmup": 0, "precision": "float32", "log_every": 1, **changes})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_term_that_is_no_number_stops_before_the_weights_change(value: float, tmp_path: Path) -> None:
    model = Loss()
    kept: list[Tensor] = []

    def values(index: int) -> float:
        kept.append(model.weight.detach().clone())
        return value if index == 3 else 1.0

    with pytest.raises(TrainingError) as caught:
        fit(model, batches(values), config(), workplace(tmp_path))
    told = str(caught.value)
    assert f"toy: bad became {value if math.isfinite(value) else ''}" in told
    assert "problem-3, other-3" in told
    assert "update 4 of 6" in told
    assert "good became" not in told
    assert torch.equal(model.weight, kept[-1])
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_gradient_that_is_no_number_stops_too(tmp_path: Path) -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"root": (self.weight * x).square().sum().sqrt()}  # finite at 0, where its slope is not

    one = Batch({"x": torch.ones(2)}, {"root": 1}, ("p",))
    with pytest.raises(TrainingError, match="the gradient's norm became nan at update 1"):
        fit(Root(), lambda *_: one, config(), workplace(tmp_path))


def test_all_micro_batches_of_a_broken_update_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="problem-2, other-2, problem-3, other-3"):
        fit(
            Loss(),
            batches(lambda i: math.nan if i == 3 else 1.0),
            config(batch_size=2, micro_batch=1),
            workplace(tmp_path),
        )


def test_divergence_stops_and_is_told(tmp_path: Path) -> None:
    """Pitfall 8: a run that collapses does not go on."""
    settings = config(updates=200, learning_rate=1e-9, schedule="constant", diverged=4.0)
    with pytest.raises(TrainingError, match=r"the loss diverged at update \d+ of 200 .*problem-"):
        fit(Loss(), batches(lambda i: 1.0 if i < 30 else 50.0), settings, workplace(tmp_path))


@pytest.mark.parametrize("after", [3.0, 3.9])
def test_a_loss_below_the_limit_goes_on(after: float, tmp_path: Path) -> None:
    settings = config(updates=60, learning_rate=1e-9, schedule="constant", diverged=4.0)
    fit(Loss(), batches(lambda i: 1.0 if i < 20 else after), settings, workplace(tmp_path))
    assert (tmp_path / "metrics.jsonl").exists()


def test_tensorboard_is_told_every_logged_row(tmp_path: Path) -> None:
    fit(Loss(), batches(lambda i: 1.0), config(), workplace(tmp_path / "run", trackers=("tensorboard",)))
    written = [p for p in (tmp_path / "trackers").rglob("events.out.tfevents*") if p.is_file()]
    assert written
    assert any(b"gradient_norm" in p.read_bytes() for p in written)
    assert not list((tmp_path / "run").rglob("events.*"))  # a tracker's files are no result


GPU = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.06 GiB is free."
    " Including non-PyTorch memory, this process has 78.08 GiB memory in use."
)


@pytest.mark.parametrize(
    ("greedy", "told"),
    [
        (lambda: torch.empty(1 << 58), r"1152921504606846976 bytes was asked for, [\d.]+ GiB was free"),
        (lambda: (_ for _ in ()).throw(torch.OutOfMemoryError(GPU)), r"2\.50 GiB was asked for, 1\.06 GiB was free"),
    ],
)
def test_too_little_memory_tells_what_was_asked_what_was_free_and_what_to_change(greedy, told, tmp_path: Path) -> None:
    class Greedy(Loss):
        def forward(self, bad: Tensor) -> dict[str, Tensor]:
            greedy()
            return super().forward(bad)

    with pytest.raises(TrainingError, match=rf"toy: memory ran out at update 1: {told}") as caught:
        fit(Greedy(), batches(lambda i: 1.0), config(), workplace(tmp_path))
    assert "First lower fit.micro_batch (now 64 rows; the update stays the same), then" in str(caught.value)


def test_another_error_of_torchs_is_not_taken_for_it(tmp_path: Path) -> None:
    class Broken(Loss):
        def forward(self, bad: Tensor) -> dict[str, Tensor]:
            return {"good": torch.ones(2) @ torch.ones(3), "bad": bad}

    with pytest.raises(RuntimeError, match=r"size|inconsistent"):
        fit(Broken(), batches(lambda i: 1.0), config(), workplace(tmp_path))
