"""A base that was not built here: a published model or any folder of one, kept as a reference and never copied."""

from pathlib import Path
from typing import Literal

from transformers import AutoConfig

from stillroom.errors import DataError
from stillroom.files import sha256
from stillroom.store import Workplace
from stillroom.students.folders import Manner, Origin, keep, open_tokenizer, refuse_folder, unopened
from stillroom.students.prompts import Style
from stillroom.students.tokens import check_matches, settle_padding
from stillroom.training import FitConfig


class Pretrained(Origin):
    """A model that the students start from, and how it is held while they learn and are read."""

    style: Style = "plain"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
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
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def make_pretrained(config: Pretrained, at: Workplace) -> None:
    """Stage `base` for a pretrained model: its tokenizer, made ready, and where its weights stand."""
    local = Path(config.source).is_dir()
    origin = Origin.model_validate(config.model_dump(include=set(Origin.model_fields)))
    if local:
        refuse_folder(Path(config.source), origin)
    elif config.source.startswith((".", "/", "~")):
        raise DataError(f"{config.source}: no such folder")
    tokenizer = open_tokenizer(origin)
    try:
        shape = AutoConfig.from_pretrained(
            config.source,
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            local_files_only=local,
        )
    except (OSError, ValueError) as error:
        raise unopened(config.source, "the model", error) from error
    rows = int(shape.get_text_config().vocab_size)
    check_matches(tokenizer, rows)
    settle_padding(tokenizer, rows)
    source = str(Path(config.source).resolve()) if local else config.source
    found = getattr(shape, "_commit_hash", None) or config.revision
    origin = origin.model_copy(update={"source": source, "revision": None if local else found})
    manner = Manner(style=config.style, attention=config.attention, dtype=config.dtype, origin=origin)
    if at.main:
        keep(tokenizer, manner, at.out)
