"""Interventions: what is consumed in place of a thought. Each names the step (0 to k - 1) whose thought it replaces.

Legend: B questions of a batch, N all questions of a call, K steps, d model width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Zero:
    """The vector of zeros."""

    step: int


@dataclass(frozen=True)
class Mean:
    """The mean of the thoughts that all questions of the call consume at this step when nothing is disturbed."""

    step: int


@dataclass(frozen=True)
class Noise:
    """z + scale · |z| · u, where u is a direction drawn uniformly; a scale of 0 changes nothing.

    u depends on the seed, the step and the question's tokens alone, so that no order and no company changes it.
    """

    step: int
    scale: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Swap:
    """The thought that question `partners[n]` consumes at this step when nothing is disturbed, for question n."""

    step: int
    partners: tuple[int, ...]


@dataclass(frozen=True)
class Skip:
    """No position at all: the sequence is one shorter, and the next step starts from the same hidden state."""

    step: int


@dataclass(frozen=True, eq=False)
class Patch:
    """A given vector: of width d for all questions, or N × d with one for each."""

    step: int
    vector: Tensor


Intervention = Zero | Mean | Noise | Swap | Skip | Patch


@dataclass(frozen=True)
class Undisturbed:
    """All questions of a call, as tokens, and the thoughts `thoughts_NKd` that they consume when left alone."""

    prompts: Sequence[Sequence[int]]
    thoughts_NKd: Tensor


def replaced(intervention: Intervention, thoughts_Bd: Tensor, rows: Sequence[int], alone: Undisturbed) -> Tensor:
    """What the questions `rows` consume in place of `thoughts_Bd`, Bd. `Skip` leaves out a position, not a thought."""
    match intervention:
        case Zero():
            return torch.zeros_like(thoughts_Bd)
        case Mean(step):
            mean_d: Tensor = alone.thoughts_NKd[:, step].mean(0)
            return mean_d.expand_as(thoughts_Bd)
        case Noise(step, scale, seed):
            u_Bd = torch.stack([_direction(seed, step, alone.prompts[row], thoughts_Bd.shape[1]) for row in rows])
            length_B1: Tensor = scale * torch.linalg.vector_norm(thoughts_Bd, dim=1, keepdim=True)
            return thoughts_Bd + length_B1 * u_Bd.to(thoughts_Bd)
        case Swap(step, partners):
            return alone.thoughts_NKd[[partners[row] for row in rows], step]
        case Patch(_, vector):
            given = vector.to(thoughts_Bd)
            return given.expand_as(thoughts_Bd) if given.dim() == 1 else given[torch.tensor(rows)]
        case Skip():
            return thoughts_Bd


def _direction(seed: int, step: int, prompt: Sequence[int], width: int) -> Tensor:
    """A unit vector, uniform over directions."""
    digest = hashlib.blake2b(f"{seed} {step} {list(prompt)}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big", signed=True))
    drawn_d = torch.randn(width, generator=generator, dtype=torch.float64)
    unit_d: Tensor = drawn_d / torch.linalg.vector_norm(drawn_d)
    return unit_d
