"""A student's folder: an ordinary Hugging Face folder or adapter, with `student.json`, which says how to ask it.

Weights are safetensors and nothing else; code that comes with a model runs only where the recipe trusts it by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from stillroom.config import Config
from stillroom.errors import DataError, first_fault
from stillroom.files import write_json
from stillroom.foreign import first_of, opening, refuse_hostile, settings_of
from stillroom.quantised import four_bits
from stillroom.students import adapters
from stillroom.students.prompts import Style, prompts_ids, stop_ids
from stillroom.students.scratch import PAUSE
from stillroom.students.thinking import load_projection, save_projection
from stillroom.students.thoughts import Thinker
from stillroom.students.tokens import hold

ADAPTER = "adapter_config.json"
MANNER = "student.json"
BEGIN, END = "<bot>", "<eot>"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

disable_progress_bar()  # type: ignore[no-untyped-call]  # loading and saving take milliseconds here, and progress has its own room


class Origin(Config):
    """Where weights come from that a student's folder does not hold itself."""

    source: str
    """A folder (in a student's folder it may be relative to it), or a model of the hub."""
    revision: str | None = None
    """The hub's commit; the newest when the base is made, and kept, where it is not given."""
    trust_remote_code: bool = False
    """Run the Python files that come with the model."""


class Thoughts(Config):
    """How a student thinks in vectors between its question and its answer."""

    count: int = Field(ge=0)
    begin: str = BEGIN
    end: str = END
    projected: bool = True
    """Whether a network of its own, in `projection.safetensors`, makes a thought of a hidden state."""


class Manner(Config):
    """How a student is held and asked: kept in `student.json` beside its weights."""

    style: Style = "plain"
    prefix: str = ""
    """What stands before every question: the task's name in distilling step-by-step."""
    pauses: int = Field(0, ge=0)
    """Contentless pause tokens between the question and the answer."""
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "eager"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantised: bool = False
    """The origin's weights are held in four bits (NF4)."""
    thoughts: Thoughts | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class Student:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    manner: Manner
    projection: nn.Sequential | None = None
    """What makes a thought of a hidden state; None where the state itself is the thought."""

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """For each question the tokens after which the student answers."""
        return self.taught([self.manner.prefix + question for question in questions])

    def prompt(self, question: str) -> list[int]:
        return self.prompts([question])[0]

    def taught(self, prompts: Sequence[str]) -> list[list[int]]:
        """The same for lessons, whose prompts name the task themselves; one without a question stays bare."""
        return [[*ids, *self.pauses()] for ids in prompts_ids(prompts, self.manner.style, self.tokenizer)]

    def pauses(self) -> list[int]:
        ids: Any = self.tokenizer.convert_tokens_to_ids([PAUSE] if self.manner.pauses else [])
        return list(ids) * self.manner.pauses

    def plain(self) -> "Student":
        """The same student with its adapter merged into its weights; this one is used up."""
        return replace(self, model=adapters.merged(self.model))

    def thinker(self) -> Thinker:
        """For the latent engine: who thinks, and between which tokens. The student must be plain."""
        assert self.manner.thoughts is not None, "asked of students that think in vectors"
        begin, end = self.ends_of_thoughts()
        return Thinker(self.model, self.projection, begin, end, int(self.tokenizer.pad_token_id), self.stops)

    def ends_of_thoughts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens before and after the thoughts."""
        told = self.manner.thoughts
        ids: Any = self.tokenizer.convert_tokens_to_ids([told.begin, told.end] if told else [])
        return tuple(ids[:1]), tuple(ids[1:])

    @property
    def stops(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return stop_ids(self.manner.style, self.tokenizer)

    @property
    def context(self) -> int:
        """The longest text in tokens, for position embeddings of any kind."""
        longest = getattr(self.model.config, "max_position_embeddings", None)
        return int(longest or min(self.tokenizer.model_max_length, 1 << 20))


def open_weights(origin: Origin, manner: Manner, device: str) -> PreTrainedModel:
    """The origin's model. Raises `DataError` for a folder that is no model's, weights pickled or missing, or code not
    trusted."""
    folder = Path(origin.source)
    if folder.is_dir():
        refuse_folder(folder, origin)
    settings: dict[str, Any] = {"quantization_config": four_bits(device)} if manner.quantised else {}
    opener: Any = AutoModelForCausalLM
    model: PreTrainedModel
    with opening(origin.source, "the model"):
        model, told = opener.from_pretrained(
            origin.source,
            revision=origin.revision,
            dtype=DTYPES[manner.dtype],
            # transformers takes sdpa by itself where a model has it, and eager where it has not (BLOOM, Gemma 2)
            attn_implementation=None if manner.attention == "sdpa" else manner.attention,
            trust_remote_code=origin.trust_remote_code,
            use_safetensors=True,
            local_files_only=folder.is_dir(),
            output_loading_info=True,
            **settings,
        )
    if missing := sorted(told["missing_keys"]):
        raise DataError(
            f"{origin.source}: its weights lack {first_of(missing)}, and random ones in their place would go unseen: "
            "fetch the folder again, or save it again with all of its tensors"
        )
    return model if manner.quantised else model.to(device)  # type: ignore[arg-type]


def refuse_folder(folder: Path, origin: Origin) -> None:
    """Raise `DataError` for a folder that is no model's, whose weights are pickled, lie elsewhere or are too few for
    its config, or whose code is not trusted."""
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json, so this is no model's folder")
    if not list(folder.glob("*.safetensors")):
        how = f"stillroom import {folder} -o NEW" if list(folder.glob("*.bin")) else "a folder that has some"
        raise DataError(f"{folder}: no weights in safetensors, and nothing else is loaded: use {how}")
    config = settings_of(folder / "config.json")
    if "auto_map" in config and not origin.trust_remote_code:
        raise DataError(f"{folder}: this model brings its own code; set trust_remote_code=true to run it")
    refuse_hostile(folder, config)


def open_tokenizer(origin: Origin) -> PreTrainedTokenizerBase:
    """The origin's tokenizer. One that says of itself that it is all in `tokenizer.json` is read from there alone:
    `AutoTokenizer` would take the class of the model beside it, with that class's own way to cut words."""
    with opening(origin.source, "its tokenizer"):
        opener: Any = PreTrainedTokenizerFast if _is_plain(Path(origin.source)) else AutoTokenizer
        tokenizer: PreTrainedTokenizerBase = opener.from_pretrained(
            origin.source,
            revision=origin.revision,
            trust_remote_code=origin.trust_remote_code,
            local_files_only=Path(origin.source).is_dir(),
        )
    return tokenizer


def _is_plain(folder: Path) -> bool:
    told = folder / "tokenizer_config.json"
    kind = settings_of(told).get("tokenizer_class") if told.is_file() else None
    return kind in ("PreTrainedTokenizerFast", "TokenizersBackend") and (folder / "tokenizer.json").is_file()


def save(student: Student, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a student's folder; `weights` stand for the model's own where those are shared out over processes."""
    if isinstance(student.model, PreTrainedModel):
        student.model.save_pretrained(folder, state_dict=dict(weights) if weights else None)
    else:
        adapters.save_adapter(student.model, folder)
    keep_projection(student, folder)
    keep(student.tokenizer, student.manner, folder)


def keep_projection(student: Student, folder: Path) -> None:
    if student.projection is not None:
        save_projection(student.projection, folder)


def keep_beside(student: Student, folder: Path) -> None:
    """What makes a folder of whole weights a student's: how it is asked, and what it thinks with."""
    keep_projection(student, folder)
    manner = student.manner.model_copy(update={"origin": None, "quantised": False})
    write_json(folder / MANNER, manner.model_dump(mode="json"))


def settle_origin(folder: Path, moved_from: Path) -> None:
    """Where a student's folder was copied elsewhere, name the weights that it is added to by their whole path."""
    manner = load_manner(moved_from)
    if manner.origin is not None:
        origin = origin_of(moved_from, manner)
        if Path(origin.source).is_dir():
            origin = origin.model_copy(update={"source": str(Path(origin.source).resolve())})
        write_json(folder / MANNER, manner.model_copy(update={"origin": origin}).model_dump(mode="json"))


def load_manner(folder: Path) -> Manner:
    """How a student is held and asked. Raises `DataError` for a folder that is no student's."""
    try:
        return Manner.model_validate_json((folder / MANNER).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: no {MANNER}, so this is no student's folder") from None
    except ValidationError as error:
        raise DataError(f"{folder / MANNER}: {first_fault(error)}; copy the student's folder anew") from None


def keep(tokenizer: PreTrainedTokenizerBase, manner: Manner, folder: Path) -> None:
    """What a folder holds beside weights. Raises `DataError` for a tokenizer whose settings no file can hold."""
    try:
        tokenizer.save_pretrained(folder)
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.end]
        raise DataError(
            f"{tokenizer.name_or_path}: its tokenizer's settings hold half of a character ({half!r}), which no file "
            "can hold: remove it there"
        ) from None
    write_json(folder / MANNER, manner.model_dump(mode="json"))


def load(folder: Path, device: str = "cpu", quantised: bool = False, dtype: str | None = None) -> Student:
    """A student from its folder, ready to be asked; its origin's weights in four bits, or in another of `DTYPES`, where
    the caller says so.

    Raises `DataError` for a folder that is none.
    """
    manner = load_manner(folder)
    manner = manner.model_copy(update={"dtype": dtype}) if dtype else manner
    held = manner.model_copy(update={"quantised": quantised or manner.quantised})
    model: Any = open_weights(origin_of(folder, manner), held, device)
    tokenizer = open_tokenizer(Origin(source=str(folder)))
    with opening(str(folder), "the student"):
        hold(model, tokenizer)
        if (folder / ADAPTER).exists():
            model = adapters.with_adapter(model, folder)
        model.eval()
        thinks = manner.thoughts is not None and manner.thoughts.projected
        made = load_projection(folder, device) if thinks else None
    student = Student(model, tokenizer, manner, made.to(DTYPES[dtype]) if made is not None and dtype else made)
    _refuse_unaskable(student, folder)
    return student


def _refuse_unaskable(student: Student, folder: Path) -> None:
    """Raises `DataError` for a manner that its tokenizer or its context does not allow."""
    thoughts, pauses = student.manner.thoughts, student.manner.pauses
    named = [*([PAUSE] if pauses else ()), *((thoughts.begin, thoughts.end) if thoughts else ())]
    unknown = [token for token in named if token not in student.tokenizer.get_vocab()]
    if unknown:
        raise DataError(
            f"{folder / MANNER}: its tokenizer has no token {unknown[0][:40]!r}, a pause or an end of thoughts: "
            "copy the student's folder anew, tokenizer and all"
        )
    silent = max(pauses, thoughts.count if thoughts else 0)
    if silent >= student.context:
        raise DataError(
            f"{folder / MANNER}: {silent} pauses or thoughts leave no room in a context of {student.context} tokens: "
            "copy the student's folder anew"
        )


def origin_of(folder: Path, manner: Manner) -> Origin:
    """Where the weights of a student's folder stand: here, or where its manner says."""
    if manner.origin is None:
        return Origin(source=str(folder))
    near = folder / manner.origin.source
    return manner.origin.model_copy(update={"source": str(near)}) if near.is_dir() else manner.origin
