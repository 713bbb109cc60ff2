"""The methods by which a student comes to do without the words of its lessons' chains: CODI, Coconut, stepwise
internalisation. Each is an objective, its batches, and the updates before which the optimizer begins anew."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from pydantic import model_validator
from torch import nn

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.students import coconut, codi, stepwise
from stillroom.students.batches import longest_lesson
from stillroom.students.chains import Chain
from stillroom.students.coconut import CoconutConfig
from stillroom.students.codi import CodiConfig
from stillroom.students.folders import Student
from stillroom.students.sft import SftObjective, named
from stillroom.students.step_decoder import StepDecoder
from stillroom.students.stepwise import StepwiseConfig
from stillroom.training import Batches, FitConfig


class Methods(Config):
    """One of the methods, or none; their lessons are those of the variant `latent`."""

    codi: CodiConfig | None = None
    """Think in vectors, distilled from the chain in words; with `filler: true` its supervision alone, on pauses."""
    coconut: CoconutConfig | None = None
    """Think in vectors, which take the place of the chain's steps stage by stage."""
    stepwise: StepwiseConfig | None = None
    """Answer at once, after the chain's words were taken away stage by stage."""

    @model_validator(mode="after")
    def _one(self) -> "Methods":
        if len(self.methods) > 1:
            raise ValueError(f"{' and '.join(self.methods)}: a student learns by one method")
        return self

    @property
    def methods(self) -> list[str]:
        return [name for name in Methods.model_fields if getattr(self, name) is not None]

    @property
    def thoughts(self) -> int:
        """How many thoughts the finished student makes."""
        if self.codi is not None:
            return self.codi.steps
        return self.coconut.thoughts if self.coconut is not None else 0

    @property
    def fillers(self) -> int:
        """How many pauses it reads in their place."""
        return self.codi.thoughts if self.codi is not None and self.codi.filler else 0


@dataclass(frozen=True)
class Course:
    """What the loop needs of a method."""

    objective: nn.Module
    batches: Batches
    resets: Collection[int] = ()


def course(
    methods: Methods, student: Student, taught: Sequence[Chain], lengths: Sequence[int], fit: FitConfig
) -> Course:
    """`lengths` are of the questions, by which batches are grouped. Raises `DataError` for texts that do not fit the
    model and `ConfigError` for stages that do not fit the run."""
    begin, end = student.ends_of_thoughts()
    _refuse_long(methods, taught, len(begin) + len(end), longest_lesson(student.context))
    pad, order = int(student.tokenizer.pad_token_id), (fit.batch_size, fit.seed)
    explains = (methods.codi and methods.codi.explain) or (methods.coconut and methods.coconut.explain)
    decoder = StepDecoder(student.model) if explains else None
    if methods.codi is not None:
        if methods.codi.filler:  # its pauses stand where thoughts would, not in its questions
            taught = [replace(chain, prompt=chain.prompt[: -methods.fillers or None]) for chain in taught]
        _refuse_unasked(taught)
        pauses = student.pauses() if methods.codi.filler else []
        batches = codi.codi_batches(taught, lengths, methods.codi, begin, end, pad, *order, pauses)
        projection, ends = student.projection, (*begin, *end)
        return Course(codi.CodiObjective(student.model, projection, methods.codi, ends, decoder), batches)
    if methods.coconut is not None:
        _refuse_unasked(taught)
        batches = coconut.coconut_batches(taught, lengths, methods.coconut, fit.updates, begin, end, pad, *order)
        objective = coconut.CoconutObjective(student.model, methods.coconut, decoder)
        return Course(objective, batches, coconut.resets(methods.coconut, fit.updates))
    assert methods.stepwise is not None, "asked where one of the methods is given"
    batches = stepwise.stepwise_batches(taught, lengths, methods.stepwise, fit.updates, pad, *order)
    return Course(SftObjective(student.model), batches, stepwise.resets(methods.stepwise, fit.updates))


def _refuse_unasked(taught: Sequence[Chain]) -> None:
    """There would be no last token of the question, at which thinking begins."""
    if unasked := [chain.problem for chain in taught if not chain.prompt]:
        raise DataError(f"{named(unasked)}: no question that could be thought about: leave it out")


def _refuse_long(methods: Methods, taught: Sequence[Chain], ends: int, most: int) -> None:
    """Learned positions would fail without a name, rotary ones not at all."""
    lengths = [_longest(methods, chain, ends) for chain in taught]
    long = [f"{row.problem} ({length})" for row, length in zip(taught, lengths, strict=True) if length > most]
    if long:
        raise DataError(
            f"{named(long)}: longer, with its steps or its thoughts, than the {most} tokens that the model has room "
            "for: choose a model with a longer context, or leave such problems out"
        )


def _longest(methods: Methods, chain: Chain, ends: int) -> int:
    if methods.codi is not None:
        return codi.longest(chain, methods.codi, ends)
    if methods.coconut is not None:
        return coconut.longest(chain, methods.coconut, ends)
    return stepwise.shortened(chain, 0).length
