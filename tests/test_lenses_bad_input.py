"""What cannot be measured stops a lens with an error, or is marked invalid with its reason: never a silent number."""

import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stillroom.activations import Place, captured, changed, steered
from stillroom.errors import ConfigError, DataError, UsageError
from stillroom.lenses import LENSES
from stillroom.lenses.subjects import Subjects
from stillroom.records import Finding, Problem
from stillroom.students import Student, save
from toys import problem, student, sums

SPLITS = {"train": sums(18), "validation": sums(6), "test": sums(12)[6:]}
BY_VALUES = {"logit_lens", "tuned_lens", "probes", "over_training"}
"""Lenses that tell one value from another."""
FITTED = {"tuned_lens", "probes"}
"""Lenses that fit as many numbers as the network is wide, for each output."""


def broken() -> Student:
    one = student(seed=1)
    with torch.no_grad():
        one.model.get_parameter("model.layers.0.mlp.down_proj.weight")[0, 0] = torch.nan
    return one


def looked(name: str, one: Student, splits: dict[str, list[Problem]], root: Path) -> list[Finding]:
    """By every lens alike; the checkpoint that `over_training` looks at is the student itself."""
    save(one, root)
    (root / "snapshots").mkdir()
    own = {f"model.{name}": weight.detach().contiguous() for name, weight in one.model.named_parameters()}
    save_file(own, root / "snapshots" / "step-3.safetensors")
    subjects = Subjects({"base": student(), "s": one}, {}, splits, {}, {"s": root})
    return LENSES[name].look(LENSES[name].config(), subjects)


@pytest.mark.parametrize("name", LENSES)
def test_activations_that_are_no_numbers_stop_every_lens(name: str, tmp_path: Path) -> None:
    one = broken()
    weights = {n: p.clone() for n, p in one.model.named_parameters()}
    attention = one.model.config._attn_implementation
    with pytest.raises(DataError, match="NaN or infinity"):
        looked(name, one, SPLITS, tmp_path / "s")
    assert traces(one.model) == 0
    assert all(torch.equal(p.nan_to_num(7), weights[n].nan_to_num(7)) for n, p in one.model.named_parameters())
    assert one.model.config._attn_implementation == attention


def traces(model: torch.nn.Module) -> int:
    """Hooks of ours, and methods put over a module's own; transformers keeps hooks once it was asked for attention."""
    hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return sum(h.__module__.startswith("stillroom") for h in hooks) + sum("forward" in vars(m) for m in model.modules())


@pytest.mark.parametrize("name", LENSES)
def test_one_class_alone_is_no_measurement_of_a_value(name: str, tmp_path: Path) -> None:
    rows = [problem(f"{i}", ("2 + 3", 5), ("5 + 1", 6), question="Ann has 2 eggs and gets 3 and 1.") for i in range(60)]
    splits = {"train": rows[:40], "validation": rows[40:50], "test": rows[50:]}
    found = [f for f in looked(name, student(seed=1), splits, tmp_path / "s") if re.search(r"value \d", f.metric)]
    assert all(f.invalid and math.isnan(f.value) for f in found)
    assert bool(found) == (name in BY_VALUES)
    assert all("class" in f.invalid for f in found)


@pytest.mark.parametrize("name", LENSES)
def test_fewer_samples_than_dimensions_are_marked_where_something_is_fitted(name: str, tmp_path: Path) -> None:
    few = {split: rows[:2] for split, rows in SPLITS.items()}
    found = looked(name, student(seed=1), few, tmp_path / "s")
    marked = [f for f in found if f.invalid]
    assert all(math.isnan(f.value) and math.isnan(f.low) and math.isnan(f.high) for f in marked)
    assert all(f.nulls and f.low <= f.value <= f.high for f in found if not f.invalid)
    if name in FITTED:
        assert marked
        assert all("dimensions" in f.invalid for f in marked)
        assert len(marked) == len(found)


def test_an_unknown_layer_is_named_with_those_that_there_are() -> None:
    model = student().model
    for within in (captured(model, [Place(3, "residual")]), changed(model, {Place(0, "mlp"): lambda x: x})):
        with pytest.raises(UsageError, match=r"layers [01] to 2"), within:
            pass
    with pytest.raises(UsageError, match="layers 0 to 2"), steered(model, 9, torch.ones(16)):
        pass


@pytest.mark.parametrize("name", LENSES)
def test_no_lens_is_told_a_layer(name: str) -> None:
    """All read every layer that there is, and choose: what is asked for beside that is refused by name."""
    with pytest.raises(ConfigError, match=rf"{name}: .*layer"):
        LENSES[name].config.parse({"name": name, "layer": 9}, name)
