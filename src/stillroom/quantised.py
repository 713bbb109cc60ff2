"""Weights in four bits (NF4 with its scales quantised once more: QLoRA, Dettmers et al. 2023, arXiv 2305.14314).

bitsandbytes does the work; here stands how it is asked, and what it is kept from doing. It is imported where it is
used: it takes seconds.
"""

import importlib.util
import logging
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from stillroom.errors import UsageError

# on import bitsandbytes tells that a kernel of other people's was not fetched from the hub: it is not wanted
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def refuse_without() -> None:
    """Raise `UsageError` where bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            "4-bit weights need bitsandbytes: pip install -e '.[gpu]' in the checkout, or keep the weights whole"
        )


def four_bits(device: torch.device | str) -> BitsAndBytesConfig:
    """What `from_pretrained` takes to hold a model's weights in four bits, with products in bfloat16.

    Raises `UsageError` where they cannot be had: no bitsandbytes, or a device that it does not know.
    """
    refuse_without()
    import bitsandbytes

    kind = torch.device(device).type
    known = sorted(bitsandbytes.supported_torch_devices)
    if kind not in known:
        raise UsageError(f"no 4-bit weights on device {kind!r}, only on {', '.join(known)}; or keep the weights whole")
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def keep_packing(model: PreTrainedModel) -> None:
    """Keep a 4-bit model's weights as they were quantised; every reader calls this before it asks.

    On CPUs with AVX-512 BF16, bitsandbytes packs a weight anew when it is first used in evaluation, and rounds its
    scales to bfloat16 for good: the model that is asked would differ from the one that was trained. Raises `UsageError`
    where that has happened, and for a width that does not divide into blocks: on a CPU, values of such a layer are read
    back that were not written.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            weight: Any = module.weight
            if getattr(weight.quant_state, "packing_format_for_cpu", False):
                raise UsageError(
                    f"{name}: this 4-bit model was asked before its weights were settled; load it once more"
                )
            block = weight.quant_state.blocksize
            if weight.device.type == "cpu" and module.in_features % block:
                raise UsageError(
                    f"4-bit weights on a CPU: widths must be multiples of {block}, and {name} has "
                    f"{module.in_features}: keep the weights whole, or use another device"
                )
            module.support_avx512bf16_for_cpu = False
