"""How much of a student is trained: all, low-rank corrections beside its linear layers, or such over 4-bit weights.

LoRA is Hu et al. 2021 (2106.09685): W x becomes W x + (alpha / r) B A x, with B = 0 at the start; QLoRA is Dettmers et
al. 2023 (2305.14314): the same over weights held in 4-bit NormalFloat. What to correct is found by type and place,
never by a list of names. peft and bitsandbytes are imported where they are used: they take seconds.
"""

import copy
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from accelerate import init_empty_weights
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stillroom.config import Config
from stillroom.errors import DataError, UsageError, unknown
from stillroom.files import write_json
from stillroom.foreign import opening
from stillroom.quantised import keep_packing

if TYPE_CHECKING:
    from peft import PeftModel


class AdapterConfig(Config):
    """What of a student is trained. `r`, `alpha` and `dropout` say nothing when `name` is `full`."""

    name: Literal["full", "lora", "qlora"] = "full"
    r: int = Field(8, ge=1)
    """The rank of a correction: a layer of m inputs and n outputs gains r (m + n) trained numbers."""
    alpha: int = Field(16, ge=1)
    """Corrections are scaled by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """The share of a correction's inputs that is dropped in training."""
    modules: tuple[str, ...] = ()
    """The last parts of the names of the layers to correct, as `q_proj`; all linear layers of the blocks where it is
    not given."""


def targets(model: PreTrainedModel, modules: Sequence[str] = ()) -> list[str]:
    """The full names of the linear layers inside the model's blocks, in the model's order; with `modules` those alone
    whose name ends in one of them.

    A block stands in a `ModuleList`; a layer counts by its type (`nn.Linear`, of which bitsandbytes' 4-bit layer is
    one, or GPT-2's `Conv1D`). The output head, and whatever shares its weight with the embeddings, stays out. Raises
    `UsageError` where nothing is left, and for one of `modules` that the blocks do not hold.
    """
    fixed = {id(layer.weight) for layer in ends(model)}
    blocks = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name.startswith(blocks) and id(module.weight) not in fixed
    ]
    if not found:
        raise UsageError(
            f"{type(model).__name__} has no linear layer inside its blocks to adapt; use adapter name=full"
        )
    ends_of = {name: name.rpartition(".")[2] for name in found}
    for module in modules:
        if module not in ends_of.values():
            raise UsageError(f"adapter modules: {unknown('layer', module, set(ends_of.values()))}")
    return [name for name in found if not modules or ends_of[name] in modules]


def attach(model: PreTrainedModel, config: AdapterConfig, grown: bool) -> "PreTrainedModel | PeftModel":
    """The model as it is to be trained: itself (`full`), or wrapped so that the adapter alone asks for gradients.

    With `grown`, tokens were added: embeddings and head are trained and saved too, by letting their own parameters
    learn. peft's `modules_to_save` would train a copy of each, and tells tied ones by the names `embed_tokens` and
    `lm_head`, which GPT-2's and BLOOM's embeddings do not bear; `trainable_token_indices` wants to know which rows are
    new. One parameter that serves at both ends stays tied by itself, in training, on disk and after merging.

    `qlora` expects a model loaded with `four_bits()`, and leaves all that is not 4-bit in float32, norms among it.
    """
    if config.name == "full":
        return model
    from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

    if config.name == "qlora":
        if not _in_4_bits(model):
            raise UsageError(
                "adapter qlora: the model is not in 4 bits; load it with quantization_config=four_bits(device)"
            )
        keep_packing(model)
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
        # else a checkpointed first block has no input that wants a gradient
        model.enable_input_require_grads()  # type: ignore[no-untyped-call]
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets(model, config.modules),
        fan_in_fan_out=_has_conv1d(model),
    )
    with known_warnings():
        wrapped = get_peft_model(model, settings)
    assert isinstance(wrapped, PeftModel)
    settings.base_model_name_or_path = ""  # a path of this machine has no business in a result
    for layer in ends(model) if grown else ():
        layer.weight.requires_grad_(True)
    return wrapped


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Compute the blocks' activations again in the backward pass, not keep them."""
    settings = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # the name since transformers 5.23
        model.activation_checkpointing_enable(settings)
    else:
        model.gradient_checkpointing_enable(settings)  # type: ignore[no-untyped-call]


def save_adapter(model: "PeftModel", folder: Path) -> None:
    """Write the adapter, with embeddings and head where they were trained, as peft's safetensors folder."""
    grown = any(layer.weight.requires_grad for layer in ends(_base(model)))
    model.save_pretrained(str(folder), save_embedding_layers=grown)
    (folder / "README.md").unlink()  # a form without a word about this adapter
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["target_modules"].sort()  # peft holds a set, whose order changes from process to process
    write_json(folder / "adapter_config.json", settings)


def with_adapter(base: PreTrainedModel, folder: Path) -> "PeftModel":
    """The base with an adapter that `save_adapter` wrote, ready to be asked. Raises `DataError` where there is none.

    `base` is what the adapter was attached to: of the same vocabulary, and in 4 bits if it was.
    """
    from peft import PeftModel

    if not (folder / "adapter_config.json").is_file():
        raise DataError(f"{folder}: no adapter_config.json, so this is no adapter's folder; save_adapter writes one")
    if _in_4_bits(base):
        keep_packing(base)
    with known_warnings(), opening(str(folder), "the adapter"):
        return PeftModel.from_pretrained(base, str(folder)).eval()


def merged(model: "PreTrainedModel | PeftModel") -> PreTrainedModel:
    """A plain model that gives the same logits: corrections added into their weights, 4-bit weights in float32 first.

    A model without an adapter is returned as it is. The wrapped model is used up: ask only what is returned.
    """
    if isinstance(model, PreTrainedModel):
        return model
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    plain = model
    if _in_4_bits(_base(model)):
        # merged in 4 bits, what was learned would be rounded away
        settings = copy.deepcopy(model.peft_config["default"])
        assert isinstance(settings, LoraConfig)
        learned = get_peft_model_state_dict(model, save_embedding_layers=False)
        base = dequantised(model.unload())
        settings.fan_in_fan_out, settings.base_model_name_or_path = _has_conv1d(base), None
        with known_warnings():
            plain = get_peft_model(base, settings)
        set_peft_model_state_dict(plain, learned)
    result: PreTrainedModel = plain.merge_and_unload()
    result.requires_grad_(False)
    result.eval()  # type: ignore[no-untyped-call]
    return result


def dequantised(model: PreTrainedModel) -> PreTrainedModel:
    """A float32 model of the values that the 4-bit `model` holds, on the same device, its layers of the plain types."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Params4bit

    config = copy.deepcopy(model.config)
    del config.quantization_config
    config.dtype = torch.float32
    with init_empty_weights(include_buffers=False):
        plain = type(model)(config)
    values = {}
    for place, module in plain.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            held = model.get_parameter(f"{place}.{name}")
            value = held.detach()
            if isinstance(held, Params4bit):
                value = dequantize_4bit(held.data, held.quant_state)
                value = value.T.contiguous() if isinstance(module, Conv1D) else value
            values[f"{place}.{name}"] = value.float()
    plain.load_state_dict(values, strict=False, assign=True)
    plain.tie_weights()
    plain.to(model.device)  # type: ignore[arg-type]
    plain.eval()  # type: ignore[no-untyped-call]
    return plain


@contextmanager
def known_warnings() -> Iterator[None]:
    """Silence, by name, what peft calls up in transformers each time that it wraps a model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def ends(model: PreTrainedModel) -> list[nn.Module]:
    """The token embeddings and, where there is one, the output head; one weight may serve both."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return [layer for layer in (model.get_input_embeddings(), head) if layer is not None]


def _base(model: "PeftModel") -> PreTrainedModel:
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    return base


def _in_4_bits(model: PreTrainedModel) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False))


def _has_conv1d(model: nn.Module) -> bool:
    """Whether the model's linear layers hold their weights as (inputs, outputs)."""
    return any(isinstance(module, Conv1D) for module in model.modules())
