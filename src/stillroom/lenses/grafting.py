"""Weight grafting: one module's or layer's difference put into the base, or taken out of the student.

For a part of the network, W_student − W_base is added to the base, all else being the base's (is it enough?), or taken
away from the student, all else being the student's (is it needed?). Both are asked as the student is asked. The null
grafts a random difference of the same norm, tensor by tensor. The part that gives most and the one that costs most are
chosen on validation problems and reported on test problems; what counts as solved: see `solving`.

A student whose adapter was merged into its weights is a student like any other. Tokens that the base lacks keep the
student's rows.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from stillroom.errors import DataError
from stillroom.lenses.ablation import AblationConfig
from stillroom.lenses.measures import adjusted, null, paired, share
from stillroom.lenses.reading import finite
from stillroom.lenses.selection import CHOSEN
from stillroom.lenses.solving import Exam, examine, sample, solved
from stillroom.lenses.spectra import random_like
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.lenses.weights import layer_of
from stillroom.records import Finding, Problem
from stillroom.students import Student

PUT_IN, TAKEN_OUT = "accuracy of the base with the difference put in", "accuracy with the difference taken out"
RANDOM, NOTHING = "random difference of equal norm", "nothing grafted"


class GraftingConfig(AblationConfig):
    name: Literal["grafting"] = "grafting"  # type: ignore[assignment]


class Part(NamedTuple):
    """Parameters that are grafted together; `layer` is None outside of the layers."""

    layer: int | None
    module: str
    names: frozenset[str]


def parts(names: Sequence[str]) -> list[Part]:
    """Each layer as a whole, its attention and its MLP, and what stands outside of the layers."""
    found: dict[tuple[int | None, str], set[str]] = {}
    for name in names:
        layer = layer_of(name)
        inner = re.sub(r"^.*?\.\d+\.", "", name).partition(".")[0].lower()
        found.setdefault((layer, "layer" if layer else "outside the layers"), set()).add(name)
        for part, sign in (("attention", "att"), ("mlp", "mlp")):
            if layer and sign in inner and "norm" not in inner:
                found.setdefault((layer, part), set()).add(name)
    return [Part(layer, module, frozenset(group)) for (layer, module), group in found.items()]


def differences(base: Mapping[str, Tensor], student: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W_student − W_base in the rows that both have. Raises `DataError` for models that are not of one shape, and where
    a difference is NaN or infinite."""
    if base.keys() != student.keys() or any(base[n].shape[1:] != student[n].shape[1:] for n in base):
        raise DataError("grafting needs two models of one architecture and width: compare these by their behaviour")
    rows = {name: min(len(base[name]), len(student[name])) for name in base}
    moved = {name: student[name][:count] - base[name][:count] for name, count in rows.items()}
    return {name: finite(tensor, f"the difference of {name}") for name, tensor in moved.items()}


@contextmanager
def added(model: nn.Module, changes: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, each tensor is added to the first rows of the parameter of its name; afterwards the parameters
    are what they were, bit by bit, also after an exception."""
    own = {name: parameter for name, parameter in model.named_parameters() if name in changes}
    kept = {name: parameter.detach().clone() for name, parameter in own.items()}
    try:
        with torch.no_grad():
            for name, change in changes.items():
                own[name][: len(change)] += change
        yield
    finally:
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(kept[name])


def grafted(
    student: Student, exam: Exam, difference: Mapping[str, Tensor], way: str, graft: Mapping[str, Tensor], size: int
) -> list[bool]:
    """What is solved by the base with the graft put in, or by the student with it taken out."""
    changes = {name: -difference[name] for name in difference} if way == PUT_IN else {}
    for name, tensor in graft.items():
        changes[name] = changes.get(name, torch.zeros_like(tensor)) + (tensor if way == PUT_IN else -tensor)
    with added(student.model, changes):
        return solved(student, exam, size)


def look(config: GraftingConfig, subjects: Subjects) -> list[Finding]:
    """Every part of every student but twins, for all test problems and by number of steps."""
    rows = {name: sample(subjects.problems[name], config.problems) for name in ("validation", "test")}
    base = {name: tensor.detach() for name, tensor in subjects.students[BASE].model.named_parameters()}
    return [
        finding
        for name, student in subjects.students.items()
        if name != BASE and name not in subjects.twins and all(rows.values())
        for finding in _of_student(name, student, base, rows, config)
    ]


def _of_student(
    name: str,
    student: Student,
    base: Mapping[str, Tensor],
    rows: Mapping[str, Sequence[Problem]],
    config: GraftingConfig,
) -> Iterator[Finding]:
    size = config.batch_size
    validation, test = (examine(student, rows[split], config.new_tokens, size) for split in ("validation", "test"))
    difference = differences(base, dict(student.model.named_parameters()))
    difference = {name: tensor.detach() for name, tensor in difference.items()}
    random = {
        name: random_like(tensor, config.seed + i).to(tensor) for i, (name, tensor) in enumerate(difference.items())
    }
    grid = parts(list(difference))
    for way in (PUT_IN, TAKEN_OUT):

        def ask(exam: Exam, of: Mapping[str, Tensor], names: frozenset[str], way: str = way) -> list[bool]:
            return grafted(student, exam, difference, way, {name: of[name] for name in names}, size)

        nothing = ask(test, difference, frozenset())
        found: list[tuple[Finding, float]] = []
        for part in grid:
            with_it, with_random = ask(test, difference, part.names), ask(test, random, part.names)
            for group, members in test.groups.items():
                hits, control, before = ([told[row] for row in members] for told in (with_it, with_random, nothing))
                finding = Finding(
                    lens="grafting",
                    subject=name,
                    reference=BASE,
                    layer=part.layer,
                    module=part.module,
                    position=group,
                    metric=way,
                    n=len(hits),
                    nulls=(null(RANDOM, share(control)), null(NOTHING, share(before))),
                    **share(hits)._asdict(),
                )
                found.append((finding, paired(hits, control)))
        yield from adjusted(found)
        told = [sum(ask(validation, difference, part.names)) * (1 if way == PUT_IN else -1) for part in grid]
        best, p = found[told.index(max(told)) * len(test.groups)]
        yield best.model_copy(update={"metric": way + CHOSEN, "p": p})
