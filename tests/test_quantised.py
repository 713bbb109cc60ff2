"""Four-bit weights: what they are, and where they are refused."""

import pytest
import torch

from stillroom import quantised
from stillroom.errors import UsageError
from stillroom.quantised import four_bits


def test_what_cannot_be_quantised_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    four_bits("cpu")
    four_bits(torch.device("cuda:1"))
    with pytest.raises(UsageError, match="no 4-bit weights on device 'meta', only on cpu, cuda"):
        four_bits("meta")
    monkeypatch.setattr(quantised.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[gpu\]'"):
        four_bits("cpu")


def test_4_bit_is_normal_float_with_scales_quantised_once_more() -> None:
    said = four_bits("cpu").to_dict()
    assert said["load_in_4bit"]
    assert said["bnb_4bit_quant_type"] == "nf4"
    assert said["bnb_4bit_use_double_quant"]
    assert said["bnb_4bit_compute_dtype"] == "bfloat16"
