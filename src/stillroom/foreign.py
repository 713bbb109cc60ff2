"""Folders of models that strangers wrote: what is looked at before a library opens them, and how their faults are told.

Nothing here is executed, unpickled or followed out of the folder. It knows no student and no teacher.
"""

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stillroom.errors import DataError, StillroomError

INDEX = "model.safetensors.index.json"
LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
SIZES = (
    ("vocab_size", "hidden_size"), ("vocab_size", "n_embd"), ("hidden_size", "intermediate_size"),
    ("n_positions", "n_embd"), ("hidden_size", "num_attention_heads", "head_dim"),
    ("hidden_size", "num_key_value_heads", "head_dim"), ("n_embd", "n_inner"), ("hidden_size", "ffn_dim"),
    ("vocab_size", "word_embed_proj_dim"), ("hidden_size", "moe_intermediate_size"), ("hidden_size", "num_experts"),
    ("hidden_size", "num_local_experts"), ("hidden_size", "n_routed_experts"), ("num_labels",),
)  # fmt: skip
"""Numbers of a config whose product is that of the values of one tensor (of labels: of the entries of a table)."""
MOST_A_BYTE = 8
"""Values that a byte of weights may stand for; of four bits it is two."""
SHOWN = 3
"""How many offenders an error names."""


def refuse_hostile(folder: Path, config: dict[str, Any]) -> None:
    """Raise `DataError` for an index that names shards outside of the folder, and for a config that tells of a model
    that these files cannot hold: the rest would be made up, in memory and time that nobody has."""
    if (folder / INDEX).exists():
        shards = settings_of(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise DataError(f"{folder / INDEX}: weight_map must map names of tensors to names of files")
        refuse_strays(folder / INDEX, shards.values())
    held, tensors = _measured(sorted(folder.glob("*.safetensors")))
    said = {**config, **(config["text_config"] if isinstance(config.get("text_config"), dict) else {})}
    for names in [(name,) for name in LAYERS] + list(SIZES):
        numbers = [said[name] for name in names if isinstance(said.get(name), int | float)]
        most = tensors if names[0] in LAYERS else MOST_A_BYTE * held
        if len(numbers) == len(names) and _above(numbers, most):
            told = " × ".join(f"{name} {said[name]}" for name in names)
            raise DataError(
                f"{folder / 'config.json'}: {told} is more than its weights hold ({tensors} tensors, {held} bytes): "
                "fetch config and weights of one model"
            )


def _above(numbers: Iterable[int | float], most: int) -> bool:
    try:
        return not math.prod(numbers) <= most
    except OverflowError:  # a whole number beyond all floats, times a fraction
        return True


def _measured(files: Iterable[Path]) -> tuple[int, int]:
    """Bytes and tensors of safetensors files. Raises `DataError` for one that is none, or was cut short."""
    held = tensors = 0
    for path in files:
        try:
            with safe_open(path, "np") as file:
                tensors += len(file.keys())
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: truncated, or no safetensors ({reason_of(error)}); fetch it again") from None
        held += path.stat().st_size
    return held, tensors


def refuse_strays(index: Path, shards: Iterable[str]) -> None:
    """Raise `DataError` for shards that lie elsewhere than beside their index."""
    if strays := [shard for shard in sorted(set(shards)) if not plain_name(shard)]:
        raise DataError(f"{index}: shards must lie in the folder itself, not at {first_of(map(repr, strays))}")


def plain_name(shard: str) -> bool:
    """Whether this is the name of a file and no path, neither for POSIX nor for Windows."""
    return shard not in ("", ".", "..") and not any(sign in shard for sign in "/\\:\0")


def settings_of(path: Path) -> dict[str, Any]:
    """What a JSON file of a model's folder says. Raises `DataError` where it is no JSON object."""
    try:
        said = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: missing; a model's folder holds it beside its weights") from None
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({reason_of(error)}); fetch the folder again") from None
    if not isinstance(said, dict):
        raise DataError(f"{path}: expected a JSON object, found a {type(said).__name__}; fetch the folder again")
    return said


@contextmanager
def opening(source: str, what: str) -> Iterator[None]:
    """Within, a library reads what strangers wrote: whatever it raises then is told as `unopened` tells it."""
    try:
        yield
    except StillroomError:
        raise
    except Exception as error:  # a malformed folder makes libraries raise errors of every kind
        raise unopened(source, what, error) from error


def unopened(source: str, what: str, error: Exception) -> DataError:
    """What to say where transformers gives a folder or a model of the hub up."""
    if source.startswith((".", "/", "~")) and not Path(source).is_dir():
        return DataError(f"{source}: no such folder")
    remedy = (
        ""
        if Path(source).is_dir()
        else " (there is no such folder here, so it was looked for on the hub; a gated model needs `hf auth login`)"
    )
    return DataError(f"{source}: {what} cannot be opened{remedy}: {reason_of(error)[:300]}")


def first_of(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def reason_of(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
