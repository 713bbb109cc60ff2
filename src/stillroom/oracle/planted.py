"""Planted traces: thoughts that linearly encode the values of the steps, so that a reader must find them.

Thought i is c · e(value after step i) + noise, where e gives each value a random unit vector of its own; nothing else
in it depends on the problem. What is not about thoughts (outputs, losses, statistics) is filled in without a meaning.
Where a problem has fewer steps than there are thoughts, the last are noise alone.

Legend: N problems, K thoughts, d width.
"""

import math
from collections.abc import Sequence

import torch

from stillroom.oracle.tables import Traces
from stillroom.records import Problem, Thought, Trace
from stillroom.students.thoughts import trace_variants

STUDENT = "planted"


def planted(problems: Sequence[Problem], thoughts: int, width: int, noise: float, seed: int, code: int = 0) -> Traces:
    """Traces whose thought i holds the value of step i. `code` chooses the vectors of the values, which training and
    test must share; `seed` draws the noise, whose length is `noise` times the code's."""
    values = {step.value for problem in problems for step in problem.steps}
    draw = torch.Generator().manual_seed(seed)
    codes = {value: _code(value, width, code) for value in values}
    vectors_NKd = noise / math.sqrt(width) * torch.randn(len(problems), thoughts, width, generator=draw)
    for row, problem in enumerate(problems):
        for i, step in enumerate(problem.steps[:thoughts]):
            vectors_NKd[row, i] += codes[step.value]
    rows = [_trace(problem, thoughts) for problem in problems]
    return Traces(tuple(rows), vectors_NKd)


def _code(value: str, width: int, code: int) -> torch.Tensor:
    """A unit vector that the value's letters alone decide."""
    draw = torch.Generator().manual_seed(int.from_bytes(f"{code} {value}".encode()[-7:], "big"))
    return torch.nn.functional.normalize(torch.randn(width, generator=draw), dim=0)


def _trace(problem: Problem, thoughts: int) -> Trace:
    outputs = dict.fromkeys(trace_variants(thoughts, ()), problem.answer)
    told = tuple(
        Thought(step=i, norm=1.0, cosine_to_previous=0.0 if i else None, sparsity=0.0, entropy=0.0, top=(("?", 1.0),))
        for i in range(thoughts)
    )
    return Trace(
        problem=problem.id, student=STUDENT, question=problem.question, gold=problem.answer, kind=problem.kind,
        steps=tuple(step.value for step in problem.steps), skeleton=problem.skeleton, partner=problem.id,
        thoughts=told, answer=problem.answer, outputs=outputs, losses=dict.fromkeys(outputs, 0.0),
    )  # fmt: skip
