"""Folders of others: a config may not tell of a model that the weights beside it cannot hold."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stillroom.errors import DataError
from stillroom.foreign import refuse_hostile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    weights = {"embedding": torch.zeros(100, 8), "block.0": torch.zeros(8, 8), "block.1": torch.zeros(8, 8)}
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path


def test_a_config_that_its_weights_hold_is_taken(folder: Path) -> None:
    refuse_hostile(folder, {"vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 2})


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"vocab_size": 10**9, "hidden_size": 8}, "vocab_size 1000000000 × hidden_size 8"),
        ({"hidden_size": 8, "num_local_experts": 10**9}, "hidden_size 8 × num_local_experts 1000000000"),
        ({"n_embd": 8, "n_inner": 10**9}, "n_embd 8 × n_inner 1000000000"),
        ({"num_labels": 10**9}, "num_labels 1000000000"),
        ({"vocab_size": 10**400, "hidden_size": 2.5}, "vocab_size 10+ × hidden_size 2.5"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000"),
        ({"text_config": {"vocab_size": 10**9, "hidden_size": 8}}, "vocab_size 1000000000 × hidden_size 8"),
    ],
)
def test_a_config_may_not_ask_for_more_than_its_weights_hold(config: dict, told: str, folder: Path) -> None:
    with pytest.raises(DataError, match=f"{told} is more than its weights hold"):
        refuse_hostile(folder, config)
