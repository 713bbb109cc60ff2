"""What latents do: taken out of a model's forward pass, or added to it, beside controls that match them.

Error-preserving ablation changes the residual stream by the latents' own part alone, x ← x − Σ f_i d_i; replacing it
by the reconstruction, as Baek & Tegmark do, changes it by all that the dictionary does not explain too, so that both
and the reconstruction alone are told. Values f need the activations of all models on the same tokens: they run abreast.

Legend: B rows, T tokens, M models, D width, F latents, V vocabulary, K latents of a set.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from stillroom import activations
from stillroom.activations import Change, Place, recorded, residual_stream, resumed
from stillroom.crosscoder.features import Firing
from stillroom.crosscoder.model import Crosscoder
from stillroom.decoding import lets_rows_go

Mode = Literal["ablate", "replace"]
Caches = Sequence[Cache] | None


def changed(crosscoder: Crosscoder, x_NMD: Tensor, latents_K: Tensor, mode: Mode, model: int = -1) -> Tensor:
    """One model's raw activations (N, D) without the latents: x − Σ f_i d_i / s, or x̂ − Σ f_i d_i / s."""
    value_NF = crosscoder.encode(x_NMD)
    part_ND = value_NF[:, latents_K] @ crosscoder.decoders()[latents_K, model] / crosscoder.scale_M[model]
    start_ND = x_NMD[:, model] if mode == "ablate" else crosscoder.decode(value_NF)[:, model]
    return start_ND - part_ND


@dataclass(frozen=True)
class Abreast:
    """The models of a crosscoder, run on the same tokens; `layer` as in `activations.residual_stream`."""

    crosscoder: Crosscoder
    models: Sequence[PreTrainedModel]
    layer: int

    @torch.inference_mode()
    def logits(
        self, ids_BT: Tensor, latents_K: Tensor | None, mode: Mode = "ablate", keep: int = 0, caches: Caches = None
    ) -> Tensor:
        """The last model's logits (B, T, V) with the latents taken out of its residual stream; unchanged with None.

        The first position of a row is left as it is: it is what sinks stand on. `keep` asks for the last logits alone;
        `caches`, one of each model, hold what stands before the tokens, and are added to.
        """
        *others, subject = self.models
        held: Sequence[Cache | None] = caches or [None] * len(self.models)
        *before, own = held
        first = 0 if own is not None and own.get_seq_length() else 1
        if latents_K is None:
            return _run(subject, ids_BT, keep, own)
        seen = []
        for model, cache in zip(others, before, strict=True):
            with residual_stream(model) as stream:
                _run(model, ids_BT, 1, cache)
            seen.append(stream[self.layer])
        with activations.changed(subject, self._change(seen, latents_K, mode, first)):
            return _run(subject, ids_BT, keep, own)

    def _change(self, seen: Sequence[Tensor], latents_K: Tensor, mode: Mode, first: int = 1) -> dict[Place, Change]:
        """Takes the latents out of the last model, where the others hold `seen`, from position `first` on."""

        def edit(x_BTD: Tensor) -> Tensor:
            x_NMD = torch.stack([*(other.float() for other in seen), x_BTD.float()], dim=2).flatten(0, 1)
            out_BTD = changed(self.crosscoder, x_NMD, latents_K, mode).view_as(x_BTD)
            return torch.cat([x_BTD[:, :first], out_BTD[:, first:].to(x_BTD.dtype)], dim=1)

        return {Place(self.layer, "residual"): edit}

    @torch.inference_mode()
    def last_logits(self, ids_BT: Tensor, sets: Sequence[Tensor]) -> Iterator[Tensor]:
        """The last model's logits (B, V) after the last token, untouched and then without each set of latents.

        All models run but once; for each set only what follows the layer is computed anew.
        """
        *others, subject = self.models
        seen = []
        for model in others:
            with residual_stream(model) as stream:
                _run(model, ids_BT, 1)
            seen.append(stream[self.layer])
        with recorded(subject) as outputs:
            yield _run(subject, ids_BT, 1)[:, -1]
        for latents_K in sets:
            change = self._change(seen, latents_K, "ablate")
            with resumed(subject, outputs[: self.layer]), activations.changed(subject, change):
                yield _run(subject, ids_BT, 1)[:, -1]

    def answers(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, ends: Sequence[int], latents_K: Tensor | None,
        mode: Mode = "ablate", batch_size: int = 256,
    ) -> list[list[int]]:  # fmt: skip
        """Greedy tokens after each prompt, up to an end."""
        out: list[list[int]] = [[] for _ in prompts]
        for rows in alike(prompts, batch_size):
            found = self._greedy([prompts[row] for row in rows], new_tokens, ends, latents_K, mode)
            for row, ids in zip(rows, found, strict=True):
                out[row] = ids
        return out

    def _greedy(
        self,
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        ends: Sequence[int],
        latents_K: Tensor | None,
        mode: Mode,
    ) -> list[list[int]]:
        ids_BT = torch.tensor([list(prompt) for prompt in prompts], device=self.models[-1].device)
        first, done_B = ids_BT.shape[1], torch.zeros(len(prompts), dtype=torch.bool, device=ids_BT.device)
        caches = [DynamicCache(config=m.config) for m in self.models] if all(map(lets_rows_go, self.models)) else None
        next_BT = ids_BT
        ends_E = torch.tensor(list(ends), device=ids_BT.device)
        for _ in range(new_tokens):
            next_B = self.logits(next_BT, latents_K, mode, keep=1, caches=caches)[:, -1].argmax(dim=-1)
            ids_BT = torch.cat([ids_BT, next_B[:, None]], dim=1)
            next_BT = next_B[:, None] if caches else ids_BT
            done_B |= torch.isin(next_B, ends_E)
            if bool(done_B.all()):
                break
        return [_cut(row, ends) for row in ids_BT[:, first:].tolist()]


def _cut(ids: list[int], ends: Sequence[int]) -> list[int]:
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]


def logit_changes(
    abreast: Abreast, prompts: Sequence[Sequence[int]], triggers: Sequence[Sequence[int]], sets: Sequence[Tensor]
) -> Tensor:
    """For each set of latents that is taken out (S, B): the change of the mean logit of each prompt's triggers, read at
    its last token: where they would come next."""
    changes_SB = torch.zeros(len(sets), len(prompts))
    for rows in alike(prompts, 64):
        ids_BT = torch.tensor([list(prompts[row]) for row in rows], device=abreast.models[-1].device)
        wanted = [list(triggers[row]) for row in rows]
        whole, *without = (
            torch.stack([one_V[tokens].mean() for one_V, tokens in zip(logits_BV, wanted, strict=True)]).float().cpu()
            for logits_BV in abreast.last_logits(ids_BT, sets)
        )
        for number, ablated_B in enumerate(without):
            changes_SB[number, rows] = ablated_B - whole
    return changes_SB


def alike(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Prompts by number in batches of one length, so that none is padded."""
    by_length: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(row)
    for rows in by_length.values():
        yield from (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))


def _run(model: PreTrainedModel, ids_BT: Tensor, keep: int, cache: Cache | None = None) -> Tensor:
    told = model(input_ids=ids_BT, logits_to_keep=keep, past_key_values=cache, use_cache=cache is not None)
    return torch.as_tensor(told.logits)


def matched(target_K: Tensor, pool: Tensor, firing: Firing) -> Tensor:
    """For each latent one of `pool` that fires about as often with about as much mass: the pairing of least summed
    squared distance in log frequency and log mass (Hungarian method), each used once."""
    told_F2 = torch.stack([(firing.count_F + 1).log(), (firing.mass_F + 1e-3).log()], dim=1)
    cost = torch.cdist(told_F2[target_K], told_F2[pool]).square()
    _, columns = linear_sum_assignment(cost.numpy())
    return pool[torch.as_tensor(np.asarray(columns), dtype=torch.long)]


def drawn(count: int, pool: Tensor, seed: int) -> Tensor:
    """`count` of `pool`, evenly: the control of the paper, matched in number alone."""
    return pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:count]]


def steer(direction_D: Tensor, strength: float) -> Callable[[Tensor], Tensor]:
    """Adds `strength` · direction at every token: hand it to `activations.changed`."""

    def edit(x_BTD: Tensor) -> Tensor:
        return x_BTD + strength * direction_D.to(x_BTD.dtype).to(x_BTD.device)

    return edit


def steering(crosscoder: Crosscoder, latent: int, firing: Firing, model: int = -1) -> Tensor:
    """What one latent writes to a model's raw residual stream (D) at its largest value, so that a strength of 1 is an
    amount that it shows by itself."""
    written_D = crosscoder.decoders()[latent, model] / crosscoder.scale_M[model]
    return written_D * firing.largest_F[latent]


def random_direction(like_D: Tensor, seed: int) -> Tensor:
    """A random direction of the same length: the control of steering."""
    drawn_D = torch.randn(like_D.shape, generator=torch.Generator().manual_seed(seed))
    return torch.as_tensor(drawn_D * (like_D.norm() / drawn_D.norm()))
