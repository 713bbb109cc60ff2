"""Readers: small language models that answer questions about a trace, taught through the one loop.

An injecting reader gets the thoughts as vectors, added after an early block on placeholder tokens and matched in norm
(Activation Oracles, arXiv 2512.15674). They are taken about the mean of their place in the training traces, or most of
what is added would be the same in every problem; a linear map stands before where the reader's width is not the
student's, and it is trained with the reader.

Legend: B rows, T tokens, K thoughts of a row (or positions with a label, in labels_BK), d width of the student, D of
the reader.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillroom import students
from stillroom.activations import added
from stillroom.config import Config
from stillroom.decoding import decode, plan
from stillroom.errors import DataError, UsageError
from stillroom.files import write_json
from stillroom.foreign import opening, settings_of
from stillroom.oracle.prompts import Prompt, arm, prompts, said, texts
from stillroom.oracle.questions import Asked
from stillroom.oracle.tables import Traces
from stillroom.students import Manner, Student, adapters
from stillroom.students.adapters import AdapterConfig
from stillroom.students.batches import CE, Example, grouped, padded, share
from stillroom.students.folders import Origin, open_tokenizer, open_weights
from stillroom.students.prompts import completions_ids
from stillroom.students.scratch import ScratchConfig, scratch_model, word_tokenizer
from stillroom.students.sft import kept_logits
from stillroom.students.thinking import plain
from stillroom.students.tokens import add_tokens, settle_padding
from stillroom.training import Batch, Batches, FitConfig

READER, ENTRANCE = "reader.json", "entrance.safetensors"
NUMBERS = 201
"""A tokenizer from scratch knows the whole numbers below, and what the training questions hold."""


class ReaderConfig(Config):
    """What reads, and how the thoughts reach it."""

    pretrained: Origin | None = None
    """A causal language model to start from, with `adapter`; without it a small one is made from scratch."""
    scratch: ScratchConfig = ScratchConfig(width=96, layers=3, positions=512)
    adapter: AdapterConfig = AdapterConfig(name="lora", r=64, alpha=128, dropout=0.05)
    layer: int = Field(1, ge=1)
    """After how many blocks the thoughts are added."""
    strength: float = Field(1.0, gt=0)
    """The length of what is added, as a multiple of what stands there."""
    fit: FitConfig = FitConfig(updates=600, batch_size=64, learning_rate=2e-3, warmup=50)


class Told(Config):
    """What a reader's folder says of it: kept in `reader.json`."""

    arm: str
    student: str
    """The fingerprint of the student whose thoughts it reads."""
    thoughts: int
    width: int
    """Of the student: d."""
    layer: int
    strength: float
    held: tuple[int | None, ...] = ()
    """For each thought the step of the solution whose value it holds, as `probes.held` counts them."""


@dataclass(frozen=True)
class Reader:
    student: Student
    """The language model that reads, held as any other."""
    told: Told
    entrance: "Entrance | None" = None
    """Of a reader that gets thoughts as vectors."""

    @property
    def context(self) -> int:
        return self.student.context

    def prompts(self, traces: Traces, asked: Sequence[Asked], new_tokens: int) -> list[Prompt]:
        """Raises `UsageError` for traces of another student, a missing thought, or a question that is too long."""
        refuse_other(self.told, traces)
        room = self.context - new_tokens
        return prompts(self.student.tokenizer, self.told.arm, traces.rows, asked, room)


def refuse_other(told: Told, traces: Traces) -> None:
    """Raise `UsageError` unless these are thoughts of the student whose thoughts the reader knows."""
    if traces.student != told.student:
        raise UsageError(
            f"these are thoughts of another model ({traces.student}) than this reader was taught on ({told.student}): "
            "collect traces of that one, or train a reader for this one"
        )
    count, width = traces.thoughts_NKd.shape[1:]
    if (count, width) != (told.thoughts, told.width):
        raise UsageError(
            f"a thought is missing: the reader knows {told.thoughts} thoughts of width {told.width}, these traces hold "
            f"{count} of width {width}: collect the traces again"
        )


def begin(config: ReaderConfig, name: str, traces: Traces, asked: Sequence[Asked], device: str) -> Reader:
    """A reader of one arm before any training. Raises as `open_weights` does, and `UsageError` for an unknown arm."""
    torch.manual_seed(config.fit.seed)
    if config.pretrained is None:
        words = texts(traces.rows, asked)
        tokenizer: Any = word_tokenizer(words, range(NUMBERS))
        model: Any = scratch_model(config.scratch, tokenizer, config.fit.seed).to(device)  # type: ignore[arg-type]
        manner = Manner(style="bare")
    else:
        manner = Manner(style="bare", origin=config.pretrained)
        model, tokenizer = open_weights(config.pretrained, manner, device), open_tokenizer(config.pretrained)
        grown = settle_padding(tokenizer, len(model.get_input_embeddings().weight))
        if grown:
            add_tokens(model, tokenizer, [str(tokenizer.pad_token)])
        model = adapters.attach(model, config.adapter, grown)
    count, width = traces.thoughts_NKd.shape[1:]
    told = Told(
        arm=name, student=traces.student, thoughts=count, width=width, layer=config.layer, strength=config.strength
    )
    own = int(plain(model).config.get_text_config().hidden_size)
    entrance = Entrance(traces.thoughts_NKd.float().mean(0), own).to(device) if arm(name).injects else None
    return Reader(Student(model.eval(), tokenizer, manner), told, entrance)


class Entrance(nn.Module):
    """The way of a thought into a reader of width `own`: less the mean of its place, then through the map."""

    centre_Kd: Tensor

    def __init__(self, centre_Kd: Tensor, own: int) -> None:
        super().__init__()
        self.register_buffer("centre_Kd", centre_Kd)
        width = centre_Kd.shape[1]
        self.map = None if own == width else nn.Linear(width, own, bias=False)
        if self.map is not None:
            nn.init.orthogonal_(self.map.weight)

    def forward(self, thoughts_BKd: Tensor) -> Tensor:
        """(B, K, D)."""
        alone_BKd = thoughts_BKd.float() - self.centre_Kd
        entered_BKD: Tensor = alone_BKd if self.map is None else self.map(alone_BKd)
        return entered_BKD


def save(reader: Reader, folder: Path) -> None:
    """Write a reader's folder: a student's, with `reader.json` and the thoughts' entrance beside the weights."""
    students.save(reader.student, folder)
    if reader.entrance is not None:
        save_file(reader.entrance.state_dict(), folder / ENTRANCE)
    write_json(folder / READER, reader.told.model_dump(mode="json"))


def load(folder: Path, device: str = "cpu") -> Reader:
    """A reader from its folder. Raises `DataError` for a folder that is none, or is not as it was written."""
    if not (folder / READER).is_file():
        raise DataError(
            f"{folder}: no {READER}, so this is no reader's folder; the stage `reader` of a recipe makes one"
        )
    told = Told.parse(settings_of(folder / READER), str(folder / READER))
    student = students.load(folder, device).plain()
    if not arm(told.arm).injects:
        return Reader(student, told)
    if not (folder / ENTRANCE).is_file():
        raise DataError(f"{folder}: no {ENTRANCE}, by which thoughts get into this reader; run its recipe again")
    with opening(str(folder), "the way of thoughts into this reader"):
        weights = load_file(folder / ENTRANCE)
        entrance = Entrance(weights["centre_Kd"], int(plain(student.model).config.get_text_config().hidden_size))
        entrance.load_state_dict(weights)
    return Reader(student, told, entrance.to(device))


class ReaderObjective(nn.Module):
    """Mean negative log-likelihood of the answers' tokens, in nats a token, with thoughts added where they belong."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.model, self.entrance, self.told = reader.student.model, reader.entrance, reader.told

    def forward(
        self,
        input_ids_BT: Tensor,
        labels_BK: Tensor,
        keep_K: Tensor,
        places_BK: Tensor | None = None,
        thoughts_BKd: Tensor | None = None,
    ) -> dict[str, Tensor]:
        with reading(self.model, self.entrance, self.told, places_BK, thoughts_BKd):
            logits_BKV = kept_logits(self.model, input_ids_BT, keep_K, None)
        return {CE: nn.functional.cross_entropy(logits_BKV.flatten(0, 1), labels_BK.flatten())}


def reading(
    model: Any, entrance: Entrance | None, told: Told, places_BK: Tensor | None, thoughts_BKd: Tensor | None
) -> contextlib.AbstractContextManager[None]:
    """Within, the model's passes get the thoughts at their places; nothing is added where there are none."""
    if entrance is None or places_BK is None or thoughts_BKd is None:
        return contextlib.nullcontext()
    return added(plain(model), told.layer, places_BK, entrance(thoughts_BKd), told.strength)


def lessons(reader: Reader, traces: Traces, asked: Sequence[Asked]) -> list[tuple[Example, Prompt, int]]:
    """Questions in tokens, with the places of their thoughts and the trace that these are of."""
    answers = completions_ids([said(one.answer) for one in asked], "bare", reader.student.tokenizer)
    longest = max(map(len, answers), default=0)
    made = reader.prompts(traces, asked, longest)
    return [
        (Example(one.problem, prompt.ids, answer), prompt, one.row)
        for one, prompt, answer in zip(asked, made, answers, strict=True)
    ]


def batches(reader: Reader, traces: Traces, asked: Sequence[Asked], config: FitConfig) -> Batches:
    """Batches for the loop, rows of like length together."""
    rows = lessons(reader, traces, asked)
    rows_of = grouped([example.length for example, _, _ in rows], config.batch_size, config.seed)
    pad = int(reader.student.tokenizer.pad_token_id)

    def batch(update: int, part: int, parts: int) -> Batch:
        chosen = [rows[i] for i in share(rows_of(update), part, parts)]
        tensors = padded([example for example, _, _ in chosen], pad)
        if arm(reader.told.arm).injects:
            tensors["places_BK"] = torch.tensor([prompt.places for _, prompt, _ in chosen])
            tensors["thoughts_BKd"] = traces.thoughts_NKd[[row for _, _, row in chosen]]
        count = sum(example.labels for example, _, _ in chosen)
        return Batch(tensors, {CE: count}, tuple(example.problem for example, _, _ in chosen))

    return batch


@torch.inference_mode()
def loss(reader: Reader, traces: Traces, asked: Sequence[Asked], batch_size: int = 64) -> float:
    """Nats a token of the answers' tokens."""
    objective = ReaderObjective(reader)
    config = FitConfig(batch_size=batch_size).settled(len(asked))
    read = batches(reader, traces, asked, config)
    device, total, tokens = plain(reader.student.model).device, 0.0, 0
    for update in range(len(asked) // config.batch_size):
        batch = read(update, 0, 1)
        term = objective(**{name: tensor.to(device) for name, tensor in batch.tensors.items()})[CE]
        total, tokens = total + float(term) * batch.counts[CE], tokens + batch.counts[CE]
    return total / tokens


@torch.inference_mode()
def answers(
    reader: Reader, traces: Traces, asked: Sequence[Asked], new_tokens: int, batch_size: int = 256
) -> list[str]:
    """What the reader says to each question, greedily, in at most so many tokens."""
    student, told = reader.student, reader.told
    model, tokenizer = plain(student.model), student.tokenizer
    made = reader.prompts(traces, asked, new_tokens)
    told_by: dict[int, str] = {}
    for rows in plan([len(prompt.ids) for prompt in made], batch_size):
        longest = max(len(made[row].ids) for row in rows)
        places_BK = thoughts_BKd = None
        if arm(told.arm).injects:  # prompts are padded on the left
            places = [[place + longest - len(made[row].ids) for place in made[row].places] for row in rows]
            places_BK = torch.tensor(places, device=model.device)
            thoughts_BKd = traces.thoughts_NKd[[asked[row].row for row in rows]].to(model.device)
        with reading(student.model, reader.entrance, told, places_BK, thoughts_BKd):
            found = decode(
                model, [made[row].ids for row in rows], new_tokens, int(tokenizer.pad_token_id), student.stops
            )
        words = tokenizer.batch_decode([one.ids for one in found], skip_special_tokens=True)
        told_by |= dict(zip(rows, words, strict=True))
    return [told_by[row] for row in range(len(asked))]


def with_thoughts_of(traces: Traces, order: Sequence[int]) -> Traces:
    """The same traces with the thoughts of others in place of their own: row n thinks what row `order[n]` thought."""
    return replace(traces, thoughts_NKd=traces.thoughts_NKd[torch.tensor(order)])
