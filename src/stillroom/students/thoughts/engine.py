"""The latent engine: a question is read once, thoughts are consumed in batches, and every variant forks late.

It knows token ids and nothing of what they mean, and it trains nothing.

Legend: B questions of a batch, N all questions of a call, V variants, A variants in a pass, K steps, L tokens of the
longest question, T columns of the stem, d model width, W vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillroom.decoding import Completion, finite
from stillroom.students.thoughts.attention import Branches, Stem, tree_attention
from stillroom.students.thoughts.interventions import Skip, Undisturbed, replaced
from stillroom.students.thoughts.thinker import Answer, Thinker, Variant, check

MEMORY = 256 << 20
"""Bytes that the variants of one batch may take; the keys of all questions come on top."""


def think_and_answer(
    thinker: Thinker, prompts: Sequence[Sequence[int]], thoughts: int | None, new_tokens: int, *, memory: int = MEMORY
) -> list[Answer]:
    """Greedy answers of all questions, with the vectors of their thoughts. Raises as `answer_variants` does."""
    answers = answer_variants(thinker, prompts, [Variant(thoughts)], new_tokens, memory=memory)
    return [answer for (answer,) in answers]


@torch.inference_mode()
def answer_variants(
    thinker: Thinker,
    prompts: Sequence[Sequence[int]],
    variants: Sequence[Variant],
    new_tokens: int,
    *,
    vectors: bool = False,
    memory: int = MEMORY,
    reference: int | None = None,
) -> list[list[Answer]]:
    """For each question its greedy answers in all variants, each what it would be if it were run alone.

    A variant shares its thoughts with the undisturbed run up to its first intervention, or to its early end. The
    vectors of disturbed variants are kept only if `vectors`. With `reference`, the number of a variant, all of them
    also tell how likely that variant's answer is to them. Raises `UsageError` for an empty question, a step that a
    variant does not have, a text longer than the model holds, or a model in training mode.
    """
    check(thinker, prompts, variants, new_tokens)
    if not prompts or not variants:
        return [[] for _ in prompts]
    depth = max(variant.depth for variant in variants)
    with tree_attention(thinker.model):
        minds = [
            _think(thinker, prompts, rows, depth) for rows in _batches(thinker, prompts, variants, new_tokens, memory)
        ]
        order = torch.tensor([row for mind in minds for row in mind.rows]).argsort()
        thoughts_NKd = torch.cat([mind.thoughts_BKd for mind in minds])[order]
        found: dict[int, list[Answer]] = {}
        alone = Undisturbed(prompts, thoughts_NKd)
        while minds:  # each question's keys are let go as soon as it is answered
            mind = minds.pop()
            found.update(
                zip(
                    mind.rows,
                    _Group(thinker, mind, variants, alone, new_tokens, reference).answers(vectors),
                    strict=True,
                )
            )
    return [found[row] for row in range(len(prompts))]


def _batches(
    thinker: Thinker, prompts: Sequence[Sequence[int]], variants: Sequence[Variant], new_tokens: int, memory: int
) -> Iterator[list[int]]:
    """Rows in batches of like length, longest first, each as large as `memory` allows and of one question at least."""
    config = thinker.model.config
    steps = max(variant.thoughts or 0 for variant in variants)
    own = len(variants) * (steps + len(thinker.end_of_thoughts) + new_tokens)
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row))
    while order:
        positions = len(prompts[order[0]]) + len(thinker.begin) + steps + own
        bytes_each = 4 * (
            2 * config.num_hidden_layers * config.hidden_size * positions + len(variants) * config.vocab_size
        )
        size = max(1, memory // bytes_each)
        yield order[:size]
        order = order[size:]


@dataclass(frozen=True)
class _Mind:
    """A batch of questions after `depth` thoughts that nothing disturbed.

    `hiddens_BKd[:, i]` became thought i; the last of them, at K - 1 = depth, was not consumed any more. `asked_Bd` is
    the hidden state at the question's own last token.
    """

    rows: list[int]
    stem: Stem
    lengths_B: Tensor
    asked_Bd: Tensor
    hiddens_BKd: Tensor
    thoughts_BKd: Tensor


def _think(thinker: Thinker, prompts: Sequence[Sequence[int]], rows: list[int], depth: int) -> _Mind:
    texts = [torch.tensor([*prompts[row], *thinker.begin]) for row in rows]
    device = thinker.model.device
    lengths_B = torch.tensor([len(text) for text in texts], device=device)
    ids_BL = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=thinker.pad).to(device)
    seen_BL = torch.arange(ids_BL.shape[1], device=device) < lengths_B[:, None]
    stem = Stem(thinker.model, seen_BL, depth)
    hidden_BLd = stem.read(thinker.embed(ids_BL))
    each_B = torch.arange(len(rows), device=device)
    asked_Bd = hidden_BLd[each_B, lengths_B - 1 - len(thinker.begin)]
    hiddens = [hidden_BLd[each_B, lengths_B - 1]]
    thoughts = [thinker.project(hiddens[0])]
    for _ in range(depth):
        hiddens.append(stem.append(thoughts[-1]))
        thoughts.append(thinker.project(hiddens[-1]))
    return _Mind(rows, stem, lengths_B, asked_Bd, torch.stack(hiddens, 1), torch.stack(thoughts, 1))


class _Group:
    """All variants of one batch of questions: they think on from where they fork, then they answer together.

    Variants are kept in an order in which those that take part in a pass come first: the disturbed ones by their
    fork, then those that only stop early, then those with thoughts off.
    """

    def __init__(
        self,
        thinker: Thinker,
        mind: _Mind,
        variants: Sequence[Variant],
        alone: Undisturbed,
        new_tokens: int,
        reference: int | None = None,
    ) -> None:
        self.thinker, self.mind, self.alone, self.new_tokens = thinker, mind, alone, new_tokens
        self.order = sorted(
            range(len(variants)),
            key=lambda v: (variants[v].thoughts is None, not variants[v].interventions, variants[v].fork),
        )
        self.variants = [variants[v] for v in self.order]
        self.reference = None if reference is None else self.order.index(reference)
        disturbed = [variant for variant in self.variants if variant.interventions]
        self.steps = range(
            min((variant.fork for variant in disturbed), default=0),
            max((variant.thoughts or 0 for variant in disturbed), default=0),
        )
        self.forks = [variant.fork for variant in disturbed]
        self.thinking = sum(variant.thoughts is not None for variant in self.variants)
        room = len(self.steps) + len(thinker.end_of_thoughts) + new_tokens - 1
        self.branches = Branches(mind.stem, self._seen(), room)
        self.tips_BVd = torch.stack(
            [mind.asked_Bd if v.thoughts is None else mind.hiddens_BKd[:, v.fork] for v in self.variants], 1
        )
        self.log: list[tuple[list[bool], Tensor, Tensor]] = []

    def _seen(self) -> Tensor:
        """What each variant sees of the stem, BVT: with thoughts off not even the tokens that begin them."""
        stem, begin = self.mind.stem, len(self.thinker.begin)
        column_T = torch.arange(stem.filled, device=stem.seen_BT.device)
        seen = [
            (column_T < self.mind.lengths_B[:, None] - (begin if variant.thoughts is None else 0))
            | ((column_T >= stem.questions) & (column_T < stem.questions + variant.fork))
            for variant in self.variants
        ]
        return torch.stack(seen, 1)

    def answers(self, vectors: bool) -> list[list[Answer]]:
        """A list for each question, in the order in which the variants were given."""
        for step in self.steps:
            self._think(step, vectors)
        tokens_BVn, logp_BV = self._decode()
        kept = [self._vectors(v, vectors) for v in range(len(self.variants))]
        place = [self.order.index(v) for v in range(len(self.order))]
        return [
            [
                Answer(self._completion(tokens_Vn[v]), kept[v][0][b], kept[v][1][b], logp_BV[b][v] if logp_BV else None)
                for v in place
            ]
            for b, tokens_Vn in enumerate(tokens_BVn)
        ]

    def _think(self, step: int, vectors: bool) -> None:
        """Every variant that has forked consumes its thought of this step, or what takes its place."""
        active = sum(fork <= step for fork in self.forks)
        hiddens_BAd = self.tips_BVd[:, :active].clone()
        thoughts_BAd = self.thinker.project(hiddens_BAd).clone()
        real = [step < (variant.thoughts or 0) for variant in self.variants[:active]]
        for v, variant in enumerate(self.variants[:active]):
            for intervention in variant.interventions:
                if intervention.step == step:
                    real[v] = real[v] and not isinstance(intervention, Skip)
                    thoughts_BAd[:, v] = replaced(intervention, thoughts_BAd[:, v], self.mind.rows, self.alone)
        self._append(thoughts_BAd, real)
        if vectors:
            self.log.append((real, thoughts_BAd, hiddens_BAd))

    def _append(self, inputs_BAd: Tensor, real: list[bool]) -> None:
        real_A = torch.tensor(real, dtype=torch.bool, device=inputs_BAd.device)
        tips_BAd = self.branches.append(inputs_BAd, real_A)
        active = len(real)
        self.tips_BVd[:, :active] = torch.where(real_A[:, None], tips_BAd, self.tips_BVd[:, :active])

    def _decode(self) -> tuple[list[list[list[int]]], list[list[float]]]:
        """Greedy tokens BVn, until every answer has met a stop, and what `_likely` tells of each answer, BV."""
        for token in self.thinker.end_of_thoughts if self.thinking else ():
            ids_BA = torch.full((len(self.mind.rows), self.thinking), token, device=self.tips_BVd.device)
            self._append(self.thinker.embed(ids_BA), [True] * self.thinking)
        stops = torch.tensor(self.thinker.stops, dtype=torch.long, device=self.tips_BVd.device)
        tokens: list[Tensor] = []
        stopped_BV = torch.zeros(self.tips_BVd.shape[:2], dtype=torch.bool, device=self.tips_BVd.device)
        agree_BV, logp_BV = ~stopped_BV, torch.zeros(stopped_BV.shape, device=stopped_BV.device)
        while len(tokens) < self.new_tokens and not (tokens and len(stops) and stopped_BV.all()):
            if tokens:
                self._append(self.thinker.embed(tokens[-1]), [True] * len(self.variants))
            logits_BVW = finite(self.thinker.head(self.tips_BVd), self.thinker.model)
            tokens.append(logits_BVW.argmax(-1))
            if self.reference is not None:
                wanted_B1 = tokens[-1][:, self.reference, None]
                agree_BV &= ~stopped_BV[:, self.reference, None]
                logp_BV += agree_BV * _likely(logits_BVW, wanted_B1)
                agree_BV &= tokens[-1] == wanted_B1
            stopped_BV |= torch.isin(tokens[-1], stops)
        found: list[list[list[int]]] = torch.stack(tokens, 2).tolist()
        return found, [] if self.reference is None else logp_BV.tolist()

    def _completion(self, tokens: list[int]) -> Completion:
        end = next((i for i, token in enumerate(tokens) if token in self.thinker.stops), None)
        return Completion(tokens[:end], end is not None)

    def _vectors(self, v: int, vectors: bool) -> tuple[Tensor, Tensor]:
        """The thoughts that a variant consumed and the hidden states they came from, both BKd."""
        shared = self.variants[v].fork if vectors or not self.variants[v].interventions else 0
        own = [(z_BAd, h_BAd) for real, z_BAd, h_BAd in self.log if v < len(real) and real[v]]
        thoughts_BKd = torch.cat([self.mind.thoughts_BKd[:, :shared], *(z_BAd[:, v : v + 1] for z_BAd, _ in own)], 1)
        hiddens_BKd = torch.cat([self.mind.hiddens_BKd[:, :shared], *(h_BAd[:, v : v + 1] for _, h_BAd in own)], 1)
        return thoughts_BKd, hiddens_BKd


def _likely(logits_BVW: Tensor, wanted_B1: Tensor) -> Tensor:
    """The log-probability, in nats, that each variant gives to its question's token `wanted_B1`: BV."""
    wide_BVW = logits_BVW.float()
    chosen_BV = wide_BVW.gather(2, wanted_B1[:, :, None].expand(-1, wide_BVW.shape[1], 1))[..., 0]
    return chosen_BV - wide_BVW.logsumexp(-1)
