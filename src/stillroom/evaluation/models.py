"""Which model is asked: a student, any folder of a model, a model of the hub, an adapter on one, or a server's.

A student says itself how it is asked; of any other model it is asked in its own chat template where it has one, else
plainly, with weights in the dtype that its config names.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig

from stillroom.config import Config
from stillroom.errors import DataError, UsageError
from stillroom.files import sha256
from stillroom.foreign import opening, settings_of
from stillroom.store import MANIFEST
from stillroom.students import adapters
from stillroom.students.folders import (
    ADAPTER,
    DTYPES,
    MANNER,
    Manner,
    Origin,
    Student,
    load,
    load_manner,
    open_tokenizer,
    open_weights,
    origin_of,
    refuse_folder,
)
from stillroom.students.prompts import Style
from stillroom.students.thinking import load_projection
from stillroom.students.tokens import check_matches, hold, settle_padding

DECIDES = {".safetensors", ".json", ".model", ".txt", ".jinja", ".py"}
"""Files that decide what a model answers; of them not those of `ASIDE`."""
ASIDE = (MANIFEST, "tokens.json", "trainer_state.json")
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


class Given(Config):
    """A model as it was named, and what was said about how to ask it."""

    source: str
    """A folder, a model of the hub, or the name that a server knows."""
    adapter: str | None = None
    """The folder of an adapter on it."""
    base_url: str | None = None
    style: Style | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    trust_remote_code: bool = False

    @property
    def label(self) -> str:
        """What its store calls it, or its folder's name; of an adapter on a base that of the adapter."""
        folder = Path(self.adapter or self.source)
        named = settings_of(folder / MANIFEST).get("name") if (folder / MANIFEST).is_file() else None
        return re.sub(r"[^\w.@+-]", "_", str(named or (folder.resolve() if folder.is_dir() else folder).name))


def settled(given: Given) -> Given:
    """The same, its base named where an adapter came alone. Raises `DataError` for what is no model that can be asked.

    Nothing is loaded here, so that of many models none is asked before all are known to be there.
    """
    if given.base_url is not None:
        if given.adapter or given.style not in (None, "chat") or given.dtype:
            raise UsageError(
                "a server holds the model and asks it in its own chat template: leave the adapter, --style and --dtype "
                "out with --base-url"
            )
        return given
    folder = Path(given.source)
    if folder.is_dir() and not given.adapter and (folder / ADAPTER).is_file() and not (folder / MANNER).is_file():
        base = settings_of(folder / ADAPTER).get("base_model_name_or_path")
        if not base:
            raise DataError(f"{folder}: this adapter does not say on which base it stands: name it as BASE+{folder}")
        given = given.model_copy(update={"source": base, "adapter": str(folder)})
    if given.adapter is not None:
        _refuse_adapter(Path(given.adapter))
    _refuse_model(given)
    return given


def _refuse_adapter(folder: Path) -> None:
    if not (folder / ADAPTER).is_file() or not list(folder.glob("*.safetensors")):
        raise DataError(f"{folder}: no {ADAPTER} with weights in safetensors beside it, so this is no adapter's folder")


def _refuse_model(given: Given) -> None:
    folder = Path(given.source)
    if not folder.is_dir():
        if given.source.startswith((".", "/", "~")) or given.source.count("/") > 1:
            raise DataError(f"{folder}: no such folder")
        return
    if (folder / MANNER).is_file():
        if given.style == "chat" or given.style is None or given.adapter is None:
            _refuse_speechless(folder)
        return
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: neither {MANNER}, config.json nor {ADAPTER}, so this is no model's folder")
    refuse_folder(folder, Origin(source=given.source, trust_remote_code=given.trust_remote_code))
    _refuse_speechless(folder)


def _refuse_speechless(folder: Path) -> None:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise DataError(
            f"{folder}: no tokenizer ({', '.join(TOKENIZERS[:3])}), so its questions cannot be put into tokens: copy "
            "the one that the model was trained with into this folder"
        )


def stamp(given: Given) -> dict[str, Any]:
    """What decides its answers, wherever its folders stand: the checksums of their files, or its name on the hub."""
    told = given.model_dump(mode="json", exclude={"source", "adapter"}, exclude_none=True)
    if given.base_url is not None:
        return {**told, "model": given.source}
    parts = [Path(given.source)] if Path(given.source).is_dir() else []
    parts += [Path(given.adapter)] if given.adapter else []
    parts += list(_bases(parts))
    found = [{p.name: sha256(p) for p in sorted(folder.iterdir()) if _decides(p)} for folder in parts]
    return {**told, "files": found, **({} if Path(given.source).is_dir() else {"hub": _commit(given)})}


def _decides(path: Path) -> bool:
    return path.is_file() and path.suffix in DECIDES and path.name not in ASIDE


def _bases(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        if (folder / MANNER).is_file():
            base = Path(origin_of(folder, load_manner(folder)).source)
            if base.is_dir() and base != folder:
                yield base


def _commit(given: Given) -> list[str | None]:
    return [given.source, getattr(_shape(given), "_commit_hash", None)]


def _shape(given: Given) -> Any:
    with opening(given.source, "the model"):
        return AutoConfig.from_pretrained(given.source, trust_remote_code=given.trust_remote_code)


def open_model(given: Given, device: str) -> Student:
    """The model as a plain student, ready to be asked. Raises `DataError` for parts that do not belong together."""
    folder = Path(given.source)
    is_student = (folder / MANNER).is_file()
    student = load(folder, device, dtype=given.dtype) if is_student else _foreign(given, device)
    student = student.plain()
    if given.adapter is not None:
        student = _adapted(student, Path(given.adapter), device)
    manner = student.manner.model_copy(update={"style": given.style}) if given.style else student.manner
    return replace(student, manner=manner)


def _foreign(given: Given, device: str) -> Student:
    origin = Origin(source=given.source, trust_remote_code=given.trust_remote_code)
    tokenizer, shape = open_tokenizer(origin), _shape(given)
    own = str(shape.dtype).removeprefix("torch.")
    style: Style = given.style or ("chat" if tokenizer.chat_template else "plain")
    dtype: Any = given.dtype or (own if own in DTYPES else "float32")
    manner = Manner(style=style, attention="sdpa", dtype=dtype, origin=origin)
    with opening(given.source, "the model"):
        rows = int(shape.get_text_config().vocab_size)
        check_matches(tokenizer, rows)
        settle_padding(tokenizer, rows)
        model = open_weights(origin, manner, device)
        hold(model, tokenizer)
    return Student(model.eval(), tokenizer, manner)  # type: ignore[no-untyped-call]


def _adapted(base: Student, folder: Path, device: str) -> Student:
    """The base with an adapter, in the adapter's manner and with its tokenizer where it brings them."""
    tokenizer = base.tokenizer
    if any((folder / name).is_file() for name in TOKENIZERS):
        tokenizer = open_tokenizer(Origin(source=str(folder)))
        settle_padding(tokenizer, int(base.model.config.get_text_config().vocab_size))
        hold(base.model, tokenizer)
    manner = load_manner(folder) if (folder / MANNER).is_file() else base.manner
    try:
        model: Any = adapters.with_adapter(base.model, folder)
    except (RuntimeError, ValueError, KeyError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}: this adapter does not fit its base ({why}): name the base it was made on") from None
    thinks = manner.thoughts is not None and manner.thoughts.projected
    held = manner.model_copy(update={"dtype": base.manner.dtype})
    made = load_projection(folder, device).to(DTYPES[held.dtype]) if thinks else None
    return Student(model, tokenizer, held, made).plain()
