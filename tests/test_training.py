"""The one loop: equal to a loop written by hand, exact in accumulation and resume, and it stops before it breaks."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stillroom.errors import ConfigError, TrainingError
from stillroom.training import Batch, FitConfig, fit, learning_rate, snapshot_steps
from stillroom.training.checkpoints import complete
from toys import workplace

WIDTH = 4


class Regression(nn.Module):
    """Two weighted terms over rows that carry a label: squared error, and a penalty on what stands in the middle."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.net = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, x_BD: Tensor, y_B: Tensor, keep_B: Tensor) -> dict[str, Tensor]:
        middle_BD = self.net[1](self.net[0](x_BD))
        error_B = (self.net[3](self.net[2](middle_BD)).squeeze(-1).float() - y_B) ** 2
        size_B = middle_BD.float().square().mean(-1)
        return {"error": (error_B * keep_B).sum() / keep_B.sum(), "size": 0.1 * (size_B * keep_B).sum() / keep_B.sum()}


def rows(first: int, count: int) -> Batch:
    """Rows as a pure function of their numbers; every third carries no label."""
    numbers = range(first, first + count)
    x = torch.stack([torch.randn(WIDTH, generator=torch.Generator().manual_seed(i)) for i in numbers])
    keep = torch.tensor([float(i % 3 != 0) for i in numbers])
    tensors = {"x_BD": x, "y_B": x.sum(-1).sin(), "keep_B": keep}
    count = int(keep.sum())
    return Batch(tensors, {"error": count, "size": count}, tuple(f"p{i}" for i in numbers))


def batches(size: int):
    return lambda update, part, parts: rows(update * size + part * size // parts, size // parts)


def config(**changes: object) -> FitConfig:
    plain = {"updates": 12, "learning_rate": 0.01, "warmup": 3, "precision": "float32", "log_every": 1, "batch_size": 8}
    return FitConfig(**{**plain, **changes})


def trained(
    folder: Path, settings: FitConfig, dropout: float = 0.0, resets: tuple[int, ...] = (), **at: object
) -> dict[str, Tensor]:
    model = Regression(dropout)
    fit(model, batches(8), settings, workplace(folder, **at), resets)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("resets", [(), (0, 4, 9)], ids=["one stage", "stages"])
def test_the_loop_equals_one_written_by_hand(resets: tuple[int, ...], tmp_path: Path) -> None:
    """Where a stage begins, so does the optimizer."""
    settings = config(weight_decay=0.1, clip=0.05, betas=(0.8, 0.95))
    mine = trained(tmp_path, settings, resets=resets)
    model = Regression()
    groups = [
        {"params": [model.net[0].weight, model.net[3].weight], "weight_decay": 0.1},
        {"params": [model.net[0].bias, model.net[3].bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.8, 0.95), fused=True)
    logged = []
    for step in range(12):
        if step in resets:
            optimizer = torch.optim.AdamW(groups, betas=(0.8, 0.95), fused=True)
        rate = 0.01 * (step + 1) / 3 if step < 3 else 0.005 * (1 + math.cos(math.pi * (step - 3) / 9))
        for group in optimizer.param_groups:
            group["lr"] = rate
        terms = model(**batches(8)(step, 0, 1).tensors)
        sum(terms.values()).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
        logged.append((step + 1, rate, float(norm), terms["error"].item(), terms["size"].item()))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(mine[name], tensor, rtol=0, atol=1e-7)
    found = [tuple(row.values()) for row in metrics(tmp_path)]
    assert [row[0] for row in found] == list(range(1, 13))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(logged), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [2, 4])
def test_accumulated_micro_batches_equal_one_batch(size: int, tmp_path: Path) -> None:
    assert (
        len({rows(i * size, size).counts["error"] for i in range(8 // size)}) > 1
    )  # so that equal weights would be wrong
    whole = trained(tmp_path / "whole", config())
    parts = trained(tmp_path / "parts", config(micro_batch=size))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-6)
    for one, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "parts"), strict=True):
        assert other == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.5, 1.0, 1.0, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_learning_rate_is_worked_by_hand(schedule, expected) -> None:
    settings = config(updates=6, warmup=2, schedule=schedule, learning_rate=1.0)
    assert [learning_rate(settings, step) for step in range(6)] == pytest.approx(expected)


def test_snapshots_are_log_spaced_and_kept(tmp_path: Path) -> None:
    assert snapshot_steps(1000, 3) == {10, 100, 1000}
    assert snapshot_steps(12, 0) == set()
    last = trained(tmp_path, config(updates=8, snapshots=3))
    kept = {int(p.stem.rpartition("-")[2]): load_file(p) for p in (tmp_path / "snapshots").iterdir()}
    assert sorted(kept) == [2, 4, 8]
    assert all(torch.equal(kept[8][name], tensor) for name, tensor in last.items())
    assert not torch.equal(kept[2]["net.0.weight"], kept[4]["net.0.weight"])


def test_logging_follows_its_interval_and_tells_the_last_update(tmp_path: Path) -> None:
    trained(tmp_path, config(log_every=5))
    assert [row["step"] for row in metrics(tmp_path)] == [5, 10, 12]


@pytest.mark.parametrize("micro", [8, 4])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_run_taken_up_again_ends_with_the_same_bytes(precision, micro, tmp_path: Path) -> None:
    settings = config(precision=precision, micro_batch=micro, snapshots=4)
    resets = (5, 7)  # one before the update at which it dies, one in the midst of the next life
    alone = trained(tmp_path / "alone", settings, 0.5, resets)
    for die in (5, 9, None):
        model = Regression(0.5)

        def fragile(index: int, part: int, parts: int, die: int | None = die) -> Batch:
            if index == die:
                raise KeyboardInterrupt
            return batches(8)(index, part, parts)

        at = workplace(tmp_path / "killed", checkpoint_seconds=0)
        try:
            torch.manual_seed(99)  # whatever was drawn before must not matter
            fit(model, fragile, settings, at, resets)
        except KeyboardInterrupt:
            assert die is not None
            assert [int(p.name.rpartition("-")[2]) for p in complete(at.partial)] == [die]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, alone[name]), name
    for name in ("metrics.jsonl", "snapshots/step-3.safetensors", "snapshots/step-12.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_that_was_cut_short_is_told_and_not_taken_up(name: str, tmp_path: Path) -> None:
    def ends(index: int, part: int, parts: int) -> Batch:
        if index == 5:
            raise KeyboardInterrupt
        return batches(8)(index, part, parts)

    at = workplace(tmp_path, checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        fit(Regression(), ends, config(), at)
    (kept,) = complete(at.partial)
    (kept / name).write_bytes((kept / name).read_bytes()[:-20])
    with pytest.raises(TrainingError, match=r"checkpoint-5: this checkpoint was damaged .*; remove it"):
        trained(tmp_path, config())


def test_a_run_asks_whether_it_may_go_on_before_it_saves(tmp_path: Path) -> None:
    def lost() -> None:
        raise RuntimeError("taken over")

    with pytest.raises(RuntimeError, match="taken over"):
        trained(tmp_path, config(), checkpoint_seconds=0, check=lost)
    assert complete(tmp_path / "partial") == []


@pytest.mark.parametrize("term", ["error", "size"])
def test_every_logged_term_moves_a_gradient(term: str) -> None:
    model = Regression()
    model(**rows(0, 8).tensors)[term].backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_two_precisions_in_one_process_do_not_meet(tmp_path: Path) -> None:
    first = trained(tmp_path / "a", config())
    low = trained(tmp_path / "b", config(precision="bfloat16"))
    again = trained(tmp_path / "c", config())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], low[name]) for name in first)
    assert all(tensor.dtype == torch.float32 for tensor in low.values())


def test_frozen_parameters_stay(tmp_path: Path) -> None:
    model = Regression()
    model.net[0].requires_grad_(False)
    before = model.net[0].weight.clone()
    fit(model, batches(8), config(updates=2), workplace(tmp_path))
    assert torch.equal(model.net[0].weight, before)
    assert not torch.equal(model.net[3].weight, Regression().net[3].weight)


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, -0.1)])
def test_betas_that_no_optimizer_takes_are_refused_with_the_recipe(betas: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="fit: betas"):
        FitConfig.parse({"betas": betas}, "fit")
