"""Published CODI checkpoints as students: a pickle or safetensors file of one whole training module comes in, and an
ordinary student's folder goes out.

Such a file holds a causal LM inside its LoRA wrapper, with three more embeddings than the model it was made from, and
the projection that turns a hidden state into the next thought (CODI, arXiv 2502.21074). The model's numbers stand here,
so nothing is fetched; a checkpoint that does not fit them is refused, never filled up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from stillroom.errors import DataError, UsageError, unknown
from stillroom.files import folder_atomic
from stillroom.foreign import first_of, reason_of
from stillroom.students import adapters
from stillroom.students.adapters import AdapterConfig
from stillroom.students.folders import BEGIN, END, Manner, Origin, Student, Thoughts, open_tokenizer, save
from stillroom.students.importing import WEIGHTS, read_tensors
from stillroom.students.thinking import mlp
from stillroom.students.tokens import check_matches, size_of

if TYPE_CHECKING:
    from peft import PeftModel

SAFE = "model.safetensors"
BASE = "base"
"""Where a student whose corrections are kept apart holds the weights that they correct."""
PAD = "[PAD]"
"""Token V of a model of V words, by its published name; V + 1 and V + 2, around the thoughts, have none."""
LORA = AdapterConfig(name="lora", r=128, alpha=32, dropout=0.1)
PUBLISHED = {"0": "prj.1", "2": "prj.3", "3": "prj.ln"}
"""The projection's layers: ours, and theirs, where a layer of dropout comes first and LayerNorm has a name."""


@dataclass(frozen=True)
class Architecture:
    """What a checkpoint's tensors do not tell about it."""

    kind: str
    """The model's type in transformers."""
    numbers: Mapping[str, Any]
    """Its config; `vocab_size` is V, before the three tokens."""
    adapter: AdapterConfig = LORA
    thoughts: int = 6


ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(
        "gpt2", {"vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024}
    ),
    "llama3.2-1b": Architecture(
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
}
"""The published ones: the base models' configs; r, alpha and thoughts from the scripts of zhenyi4/codi, where the
projection is as wide inside (`prj_dim`) as the model."""


def import_codi(
    source: Path,
    target: Path,
    architecture: str,
    tokenizer: Path | None,
    merge: bool,
    architectures: Mapping[str, Architecture] = ARCHITECTURES,
) -> None:
    """Write a published checkpoint as `target`, a student's folder that appears whole or not at all.

    `source` holds `model.safetensors` or `pytorch_model.bin`; `tokenizer` is the folder of the base model's tokenizer,
    where the checkpoint's own has none. With `merge` the corrections are added into the weights, in float32, since
    bfloat16 would round them away; else the folder is an adapter, whose base lies in it as `base`, each in its dtype.
    Raises `UsageError` for an unknown architecture, and `DataError` for a target that exists, for what cannot be read
    (code in a pickle is never run), and for tensors or a tokenizer that are not the architecture's.
    """
    if architecture not in architectures:
        raise UsageError(unknown("architecture", architecture, architectures))
    for folder in (source, tokenizer or source):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; fetch it first, nothing is fetched here")
    if target.exists():
        raise DataError(f"{target} exists; remove it, or import into another folder")
    shape = architectures[architecture]
    words = _tokenizer(tokenizer or source, shape, architecture)
    wrapped, projection = _skeleton(shape, words)
    _fill(wrapped, projection, _read(source), f"{source}: the weights", architecture)
    target.parent.mkdir(parents=True, exist_ok=True)
    thoughts, origin = Thoughts(count=shape.thoughts), None if merge else Origin(source=BASE)
    with folder_atomic(target) as folder:
        model: Any = adapters.merged(wrapped.float()) if merge else wrapped
        save(Student(model, words, Manner(style="bare", thoughts=thoughts, origin=origin), projection), folder)
        if not merge:
            wrapped.unload().save_pretrained(folder / BASE)


def _tokenizer(folder: Path, shape: Architecture, name: str) -> PreTrainedTokenizerBase:
    """The folder's tokenizer with the three tokens; the first may be there, since the published training added it."""
    try:
        words, size = open_tokenizer(Origin(source=str(folder))), int(shape.numbers["vocab_size"])
    except DataError as error:
        raise DataError(f"{error}; name the folder of the base model's tokenizer (--tokenizer FOLDER)") from None
    told = f"{folder}: the tokenizer has {size_of(words)} tokens, {name} has {size}"
    if size_of(words) not in (size, size + 1) or (size_of(words) == size + 1 and words.pad_token_id != size):
        raise DataError(f"{told} and may have one more for padding; name the folder of its base model's tokenizer")
    pad = str(words.convert_ids_to_tokens(size)) if size_of(words) > size else PAD
    added = [AddedToken(token, special=True, normalized=False) for token in (pad, BEGIN, END)]
    words.add_tokens(added, special_tokens=True)
    words.pad_token = pad
    ids = words.convert_tokens_to_ids([pad, BEGIN, END])
    if ids != [size, size + 1, size + 2]:
        raise DataError(f"{told}, and {pad}, {BEGIN}, {END} became {ids}: it means something else by one of them")
    check_matches(words, size + 3)
    return words


def _skeleton(shape: Architecture, words: PreTrainedTokenizerBase) -> tuple["PeftModel", nn.Sequential]:
    """Model in its wrapper, and projection, without weights: their names are the published ones."""
    ends = {f"{end}_token_id": getattr(words, f"{end}_token_id") for end in ("pad", "bos", "eos")}
    numbers = {**shape.numbers, "vocab_size": shape.numbers["vocab_size"] + 3}
    config: PretrainedConfig = AutoConfig.for_model(shape.kind, **numbers, **ends)
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        wrapped: Any = adapters.attach(model, shape.adapter, grown=False)
        projection = mlp(config.hidden_size, config.hidden_size)
    return wrapped.eval(), projection.eval()


def _read(source: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors by their published names."""
    path = source / SAFE
    if not path.exists():
        if not list(source.glob(f"{WEIGHTS}*")):
            raise DataError(f"{source}: neither {SAFE} nor {WEIGHTS}; fetch one of them from where it was published")
        return read_tensors(source)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: truncated, or no safetensors ({reason_of(error)}); fetch it again") from None


def _fill(wrapped: "PeftModel", projection: nn.Module, held: Mapping[str, Tensor], where: str, name: str) -> None:
    """Give model and projection their weights, each tensor used once and none made up."""
    parts: tuple[tuple[nn.Module, dict[str, str]], ...] = (
        (wrapped, {own: f"codi.{own}" for own in wrapped.state_dict()}),
        (projection, {own: _published(own) for own in projection.state_dict()}),
    )
    expected = {there: part.state_dict()[own] for part, names in parts for own, there in names.items()}
    base: Any = wrapped.get_base_model()
    held = _tied(held, wrapped, base, where)
    _refuse(held, expected, where, name)
    for part, names in parts:
        part.load_state_dict({own: held[there].contiguous() for own, there in names.items()}, assign=True)
    base.tie_weights()


def _published(own: str) -> str:
    layer, tensor = own.split(".")
    return f"{PUBLISHED[layer]}.{tensor}"


def _tied(held: Mapping[str, Tensor], wrapped: "PeftModel", base: PreTrainedModel, where: str) -> dict[str, Tensor]:
    """With the one tensor of embeddings and head under both names: safetensors may hold it once, and under either."""
    both = [layer.weight for layer in adapters.ends(base)]
    names = [f"codi.{name}" for name, weight in wrapped.named_parameters() if any(weight is one for one in both)]
    found = [name for name in names if name in held]
    if len(found) == 2 and not torch.equal(held[found[0]], held[found[1]]):
        raise DataError(
            f"{where} hold {found[0]} and {found[1]} that differ, where the model ties them; fetch them again"
        )
    return {**held, **{name: held[found[0]] for name in names if found}}


def _refuse(held: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str, name: str) -> None:
    wrong: dict[str, list[str]] = {
        "lack what CODI of {} needs": [there for there in expected if there not in held],
        "hold what CODI of {} does not know": [there for there in held if there not in expected],
        "are shaped unlike CODI of {}": [
            f"{there} is {_told(held[there])}, expected {_told(tensor)}"
            for there, tensor in expected.items()
            if there in held and not _alike(held[there], tensor)
        ],
    }
    said = [f"{what.format(name)}: {first_of(names)}" for what, names in wrong.items() if names]
    if said:
        raise DataError(f"{where} {'; they '.join(said)}. Name the architecture that they are of, or fetch them again")


def _alike(tensor: Tensor, expected: Tensor) -> bool:
    return tensor.shape == expected.shape and tensor.is_floating_point()


def _told(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
