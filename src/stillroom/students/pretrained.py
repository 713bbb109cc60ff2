"""Models that were not made here, as bases or as students that were taught elsewhere: published ones, or any folder of
one. Weights are kept as a reference and never copied.
"""

import shutil
from pathlib import Path
from typing import Literal

from transformers import AutoConfig

from stillroom.errors import DataError
from stillroom.files import sha256
from stillroom.foreign import opening
from stillroom.store import Workplace
from stillroom.students.folders import (
    ADAPTER,
    MANNER,
    Manner,
    Origin,
    keep,
    load_manner,
    open_tokenizer,
    origin_of,
    refuse_folder,
)
from stillroom.students.prompts import Style
from stillroom.students.thinking import PROJECTION
from stillroom.students.tokens import check_matches, settle_padding
from stillroom.training import FitConfig


class Pretrained(Origin):
    """A model that the students start from, and how it is held while they learn and are read."""

    style: Style = "plain"
    tokenizer: str | None = None
    """Whose tokenizer it reads with, a folder or a model of the hub, where that is not its own: two models that are
    compared token by token must read the same tokens."""
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    """With `sdpa` a model that has none attends by `eager`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights. Training computes in `fit.precision` whatever they are held in."""
    checkpointing: bool = False
    """Compute activations again in the backward pass, not keep them: about a third slower, far less memory."""


FOUNDING = {
    "full": {"learning_rate": 5e-5, "schedule": "cosine", "epochs": 3.0, "batch_size": 64},
    "lora": {"learning_rate": 2e-4, "schedule": "cosine", "epochs": 3.0, "batch_size": 64},
    "qlora": {"learning_rate": 2e-4, "schedule": "cosine", "epochs": 3.0, "batch_size": 64},
}
"""What `fit` is for a pretrained base, by adapter, where the recipe does not say."""


def founding(fit: FitConfig, adapter: str) -> FitConfig:
    """`fit` with the founding recipes' values for what was not given; `updates` that were given stand for epochs."""
    values = {key: value for key, value in FOUNDING[adapter].items() if key not in fit.model_fields_set}
    if "updates" in fit.model_fields_set:
        values.pop("epochs", None)
    return fit.model_copy(update=values)


def contents(source: str) -> dict[str, str]:
    """The checksums of a local model's files: its name alone would not tell when it has changed."""
    folder = Path(source)
    if not folder.is_dir():
        return {}
    found = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    if MANNER in found:  # an adapter's folder says where the weights are that it corrects
        base = Path(origin_of(folder, load_manner(folder)).source)
        if base.is_dir() and base != folder:
            found |= {f"base/{name}": digest for name, digest in contents(str(base)).items()}
    return found


def make_pretrained(config: Pretrained, at: Workplace) -> None:
    """Stage `base` for a pretrained model: its tokenizer, made ready, and where its weights stand."""
    local = Path(config.source).is_dir()
    origin = Origin.model_validate(config.model_dump(include=set(Origin.model_fields)))
    if local:
        refuse_folder(Path(config.source), origin)
    elif config.source.startswith((".", "/", "~")):
        raise DataError(f"{config.source}: no such folder")
    tokenizer = open_tokenizer(Origin(source=config.tokenizer) if config.tokenizer else origin)
    with opening(config.source, "the model"):
        shape = AutoConfig.from_pretrained(
            config.source,
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            local_files_only=local,
        )
        rows = int(shape.get_text_config().vocab_size)
        check_matches(tokenizer, rows)
        settle_padding(tokenizer, rows)
    source = str(Path(config.source).resolve()) if local else config.source
    found = getattr(shape, "_commit_hash", None) or config.revision
    origin = origin.model_copy(update={"source": source, "revision": None if local else found})
    manner = Manner(style=config.style, attention=config.attention, dtype=config.dtype, origin=origin)
    if at.main:
        keep(tokenizer, manner, at.out)


def make_taught_elsewhere(config: Pretrained, thoughts: int, at: Workplace) -> None:
    """Stage `student` for one that is not trained here: a folder that `stillroom` wrote (`import --codi`, `train -o`,
    `export`), which says itself how it is asked, or any model, asked as `config` says.

    Raises `DataError` where it does not make as many thoughts as the recipe says.
    """
    folder = Path(config.source)
    if not (folder / MANNER).is_file():
        if thoughts:
            raise DataError(
                f"{config.source}: no {MANNER}, so this is no student that thinks in vectors; of a published CODI "
                f"checkpoint `stillroom import CHECKPOINT --codi llama3.2-1b -o {config.source}` makes one"
            )
        make_pretrained(config, at)
        return
    manner = load_manner(folder)
    made = manner.thoughts.count if manner.thoughts else 0
    if made != thoughts:
        raise DataError(f"{folder}: this student makes {made} thoughts, the recipe says {thoughts}: write {made} there")
    origin = origin_of(folder, manner)
    if origin.trust_remote_code and not config.trust_remote_code:
        raise DataError(f"{folder}: this student brings its own code; set pretrained.trust_remote_code=true to run it")
    if Path(origin.source).is_dir():
        origin = origin.model_copy(update={"source": str(Path(origin.source).resolve())})
    if not at.main:
        return
    for name in (ADAPTER, "adapter_model.safetensors", PROJECTION):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, at.out / name)
    keep(open_tokenizer(Origin(source=str(folder))), manner.model_copy(update={"origin": origin}), at.out)
