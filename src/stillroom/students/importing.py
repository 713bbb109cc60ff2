"""Folders of pickled weights, as the hub held them for years, made into folders of safetensors.

A pickle is a program. Here only torch's restricted reader opens one (`weights_only=True`: tensors and containers,
nothing callable), names in the folder are never trusted as paths, and code beside the weights is refused. Which
tensors belong to a model is for transformers to say; whatever it would make up, leave out or bend is an error here.
"""

import pickle
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from stillroom.errors import DataError
from stillroom.files import folder_atomic
from stillroom.foreign import first_of, reason_of, refuse_strays, settings_of

WEIGHTS = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
KEPT = {".json", ".txt", ".model", ".jinja"}
"""What is copied beside the weights: config, tokenizer and generation settings, none of which can hold code."""
OUT = {"config.json", "adapter_config.json", INDEX, "model.safetensors.index.json"}
"""Written anew, or said of other weights than those that are written."""
CALL = re.compile(r"GLOBAL ([\w.]+)")
"""What torch's restricted reader says of a name that a pickle would call."""
LEFT_OVER = re.compile(r"\.attn\.masked_bias$")
"""A constant that older GPT-2 code saved beside the weights."""


def import_folder(source: Path, target: Path) -> None:
    """Write the model of a `.bin` folder as `target`, a safetensors folder that appears whole or not at all.

    `source` holds `pytorch_model.bin`, or its shards and `pytorch_model.bin.index.json`, beside `config.json` and the
    tokenizer. Weights keep their dtype. Raises `DataError` for a target that exists, for code in a pickle or named by
    the config, for a shard that lies elsewhere, is missing or broken, and for tensors that are not the model's.
    """
    if target.exists():
        raise DataError(f"{target} exists; remove it, or import into another folder")
    if not (source / WEIGHTS).exists() and not (source / INDEX).exists() and any(source.glob("*.safetensors")):
        raise DataError(f"{source}: holds safetensors already; use the folder as it is")
    config = _config(source)
    model = _model(config, read_tensors(source), source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with folder_atomic(target) as folder:
        model.save_pretrained(folder)
        for file in sorted(source.iterdir()):
            if file.is_file() and file.suffix in KEPT and file.name not in OUT:
                shutil.copyfile(file, folder / file.name)


def _config(source: Path) -> PretrainedConfig:
    """The folder's config, by transformers' own class. Raises `DataError` where it asks for code from the folder."""
    path = source / "config.json"
    if not path.is_file():
        raise DataError(f"{path}: missing; an importable folder holds config.json beside {WEIGHTS}")
    said = settings_of(path)
    for file in (path, source / "tokenizer_config.json"):
        if file.exists() and settings_of(file).get("auto_map"):
            raise DataError(
                f"{file}: auto_map names code that the folder brings along; it is not run. "
                "Only what transformers knows by itself can be imported"
            )
    if said.get("quantization_config"):
        raise DataError(f"{path}: the weights are quantised; import the model's unquantised folder")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, StrictDataclassError) as error:
        raise DataError(f"{path}: transformers cannot read it ({reason_of(error)})") from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise DataError(f"{path}: model type {config.model_type!r} is no causal language model that transformers knows")
    return config


def read_tensors(source: Path) -> dict[str, Tensor]:
    """All tensors of the folder by name: of its one file, or of the shards that its index names."""
    if not (source / INDEX).exists():
        return _unpickled(source / WEIGHTS)
    shard_of = settings_of(source / INDEX).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of or not all(isinstance(s, str) for s in shard_of.values()):
        raise DataError(f"{source / INDEX}: weight_map must map names of tensors to names of files")
    shards = sorted(set(shard_of.values()))
    refuse_strays(source / INDEX, shards)
    found = {shard: _unpickled(source / shard) for shard in shards}
    absent = [f"{name} ({shard})" for name, shard in shard_of.items() if name not in found[shard]]
    if absent:
        raise DataError(f"{source / INDEX}: the shards do not hold what it promises: {first_of(absent)}")
    unlisted = [f"{name} ({shard})" for shard in shards for name in found[shard] if shard_of.get(name) != shard]
    if unlisted:
        raise DataError(f"{source / INDEX}: the shards hold what it does not list: {first_of(unlisted)}")
    return {name: found[shard][name] for name, shard in shard_of.items()}


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, on the CPU. Nothing in the file is called."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # what can be read is read
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; fetch the folder again") from None
    except pickle.UnpicklingError as error:
        if called := CALL.search(str(error)):
            raise DataError(
                f"{path}: a pickle that calls {called[1]}; it was not run. "
                "Take these weights from a source that publishes safetensors"
            ) from None
        raise DataError(f"{path}: truncated, or not written by torch; fetch it again") from None
    except Exception as error:  # a broken pickle makes torch's reader raise errors of every kind
        raise DataError(f"{path}: truncated, or not written by torch ({reason_of(error)}); fetch it again") from None
    if not isinstance(state, dict):
        raise DataError(f"{path}: expected a dictionary of tensors, found a {type(state).__name__}")
    others = [f"{name!r} is a {type(value).__name__}" for name, value in state.items() if not _is_weight(name, value)]
    if others:
        raise DataError(f"{path}: expected names with dense tensors alone: {first_of(others)}")
    return state


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def _model(config: PretrainedConfig, tensors: dict[str, Tensor], source: Path) -> PreTrainedModel:
    """The config's model filled with `tensors`, each used once and none made up, in the widest dtype among them."""
    tensors = {name: tensor for name, tensor in tensors.items() if not LEFT_OVER.search(name)}
    dtype = torch.bfloat16 if not tensors else None
    for tensor in tensors.values():
        if tensor.is_floating_point():
            dtype = tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype)
    kind: type[PreTrainedModel] = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]  # type: ignore[assignment]
    model: PreTrainedModel
    told: dict[str, Any]
    with _quiet():
        model, told = kind.from_pretrained(  # type: ignore[misc]
            None, config=config, state_dict=tensors, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True
        )
    wrong = {
        "lack what the config's model needs": sorted(told["missing_keys"]),
        "hold what the config's model does not know": sorted(told["unexpected_keys"]),
        "are shaped unlike the config's model": [
            f"{name} is {tuple(is_)}, expected {tuple(expected)}"
            for name, is_, expected in sorted(told["mismatched_keys"])
        ],
    }
    for what, names in wrong.items():
        if names:
            raise DataError(f"{source}: the weights {what}: {first_of(names)}; fetch config and weights of one model")
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if config.tie_word_embeddings and head.weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False  # two different tensors came: transformers keeps both
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report on loading, which says what our errors say."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)
