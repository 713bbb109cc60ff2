"""Activations whose dictionary is known: features of one model alone, of both, and of both in other directions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillroom.crosscoder.data import Tokens

WIDTH, LENGTH = 32, 21
KINDS = {"a-only": 8, "b-only": 8, "shared": 24, "rotated": 8}


@dataclass(frozen=True)
class Planted:
    """Sparse sums of `direction_KMD`, whose norms say how strongly each model holds a feature; a `Source`."""

    direction_KMD: Tensor
    documents: int = 2000
    rate: float = 0.06
    noise: float = 0.01
    models: tuple[str, ...] = ("a", "b")
    layer: int = 1

    @property
    def lengths(self) -> Sequence[int]:
        return [LENGTH] * self.documents

    def values(self, document: int) -> Tensor:
        generator = torch.Generator().manual_seed(document)
        shape = (LENGTH, len(self.direction_KMD))
        return (torch.rand(shape, generator=generator) < self.rate) * (1 + torch.rand(shape, generator=generator))

    def read(self, documents: Sequence[int]) -> Tokens:
        values_NK = torch.cat([self.values(document) for document in documents])
        x_NMD = torch.einsum("nk,kmd->nmd", values_NK, self.direction_KMD)
        x_NMD += self.noise * torch.randn(x_NMD.shape, generator=torch.Generator().manual_seed(documents[0]))
        document_N = torch.tensor(documents).repeat_interleave(LENGTH)
        position_N = torch.arange(LENGTH).repeat(len(documents))
        return Tokens(x_NMD, document_N, position_N, document_N * LENGTH + position_N)  # every text is another


def planted(weak: float | None = None, **settings: object) -> tuple[Planted, list[str]]:
    """Near-orthogonal features and the kind of each; with `weak`, the shared ones are that strong in model a."""
    generator = torch.Generator().manual_seed(1)
    kinds = [kind for kind, count in KINDS.items() for _ in range(count)]
    unit_KMD = nn.functional.normalize(torch.randn(len(kinds), 2, WIDTH, generator=generator), dim=2)
    for number, kind in enumerate(kinds):
        if kind == "shared":
            unit_KMD[number, 0] = unit_KMD[number, 1]
            unit_KMD[number, 0] *= 1 if weak is None else weak
        if kind.endswith("-only"):
            unit_KMD[number, 1 if kind == "a-only" else 0] = 0
    return Planted(unit_KMD, **settings), kinds  # type: ignore[arg-type]
