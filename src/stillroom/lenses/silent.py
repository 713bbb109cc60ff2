"""What students hold while they read without words: the residual stream at named places.

The *silent* text is the question and `The answer is`, with the student's pauses or thoughts between them and no
reasoning in words (`texts`); its places are single positions, and all problems of a task share them.

Legend: L layers (0 is the embedding), P places, B problems, D width.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stillroom.activations import residual_stream
from stillroom.lenses.reading import finite
from stillroom.lenses.texts import ANSWER, END, Text, batch, texts
from stillroom.records import Problem
from stillroom.students import Student


class Silent(NamedTuple):
    """The residual stream over the silent text: `stream_LPBD` in float32 on the CPU, a name for each place."""

    places: tuple[str, ...]
    stream_LPBD: Tensor


@torch.no_grad()  # not inference mode: a tuned lens is fitted on what is read
def read_silent(student: Student, problems: Sequence[Problem], batch_size: int) -> Silent:
    """What a student holds at the last token of each number of the question, at its end, at its pauses or thoughts, and
    before the answer.

    Numbers are those that every question has, counted from the first. Raises `DataError` where something that was read
    is not finite.
    """
    rows = texts(student, problems)
    places = [dict(_places(row)) for row in rows]
    names = [name for name in places[0] if all(name in held for held in places)]
    parts = []
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        with residual_stream(student.model) as stream:
            student.model.base_model(**batch(student, rows[part]), use_cache=False)
        at_BP = torch.tensor([[held[name] for name in names] for held in places[part]], device=stream[0].device)
        found = [layer_BTD[torch.arange(len(at_BP), device=layer_BTD.device), at_BP.T] for layer_BTD in stream]
        parts.append(finite(torch.stack(found).float().cpu(), "the residual stream"))
    return Silent(tuple(names), torch.cat(parts, dim=2))


def _places(row: Text) -> Iterator[tuple[str, int]]:
    """A text's places in the order in which they stand."""
    yield from ((name, at[-1]) for name, at in row.spans.items() if name.startswith("number "))
    yield END, row.spans[END][-1]
    for kind in ("pauses", "thoughts"):
        yield from ((f"{kind[:-1]} {i}", at) for i, at in enumerate(row.spans[kind], 1))
    yield ANSWER, row.spans[ANSWER][-1]
