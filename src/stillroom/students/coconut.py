"""Coconut (Hao et al. 2024, arXiv 2412.06769): a chain in words gives way to thoughts, stage by stage, from its start.

At stage 0 the chain is all words. At stage s its first s steps are gone, and s·c thoughts stand before the rest; a
thought is the model's last hidden state, fed back as it is. After the last of these stages only thoughts and answer are
left. The loss is the cross-entropy of the words that remain and of the answer: question and thoughts are given.

Thoughts stand between two tokens of their own. A row of stage 0 has neither, being what a student reads that never
thinks; one without a word left reads what the engine asks: question, thoughts, answer.

As published (GPT-2): c 2, three latent stages, 25 epochs of words, then 3 epochs for each latent stage and 13 with
thoughts alone; learning rate 1e-4, weight decay .01, batch 128, the optimizer begun anew. SIM-CoT's auxiliary decoder
(`step_decoder`) may be added; its own run has five latent stages.

Legend: B rows, Q question tokens, A tokens that are read after the thoughts, K = A + 1 positions that may predict a
label, N steps that thoughts stand for, S tokens of the longest of them, d width, V vocabulary.
"""

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from stillroom.config import Config
from stillroom.errors import ConfigError
from stillroom.students.batches import CE, IGNORED, grouped, right_padded, share
from stillroom.students.chains import Chain
from stillroom.students.step_decoder import EXPLAIN, StepDecoder, explain, explained, step_labels
from stillroom.students.thinking import Thinking, plain, without_checkpoints
from stillroom.training import Batch, Batches


class CoconutConfig(Config):
    max_latent_stage: int = Field(3, ge=1)
    """How many steps of the chain give way to thoughts, one a stage."""
    thoughts_per_step: int = Field(2, ge=1)
    stage_updates: list[int] | None = None
    """Updates of each stage but the last, which goes on to the run's end. Equal stages where it is not given, but for
    stage 0."""
    words_first: float = Field(25 / 3, gt=0)
    """How many times as long as another stage stage 0 lasts, where `stage_updates` is not given."""
    mix: float = Field(0.0, ge=0, le=1)
    """The probability that a row is shown at a stage drawn uniformly from 0 to the current one."""
    pad_latents_to_max: bool = True
    """After the last latent stage every row has all thoughts; else none has more than its steps account for."""
    drop_all: bool = True
    """After the last latent stage comes another, without the words that are left of a longer chain."""
    explain: float = Field(0.0, ge=0)
    """Weight of SIM-CoT's decoder of steps; 1 as published, and no decoder where it is 0."""

    @property
    def thoughts(self) -> int:
        """How many the finished student consumes."""
        return self.max_latent_stage * self.thoughts_per_step

    @property
    def stages(self) -> int:
        return self.max_latent_stage + 1 + self.drop_all

    @model_validator(mode="after")
    def _each_stage_has_a_length(self) -> "CoconutConfig":
        given = self.stage_updates
        if given is not None and (len(given) != self.stages - 1 or min(given) < 1):
            raise ValueError(f"stage_updates: expected {self.stages - 1} numbers above 0, the last stage has none")
        return self


def starts(config: CoconutConfig, updates: int) -> list[int]:
    """The update before which each stage begins, from 0. Raises `ConfigError` where the last stage would have none."""
    if config.stage_updates is None:
        lengths = [config.words_first] + [1.0] * (config.stages - 1)
        return [round(updates * sum(lengths[:s]) / sum(lengths)) for s in range(config.stages)]
    begins = [sum(config.stage_updates[:s]) for s in range(config.stages)]
    if begins[-1] >= updates:
        raise ConfigError(
            f"stage_updates: the last stage would begin after {begins[-1]} updates, the run has {updates}: "
            "shorten the stages or raise fit.updates"
        )
    return begins


def resets(config: CoconutConfig, updates: int) -> frozenset[int]:
    """The updates (from 0) before which the optimizer's state is cleared: the first of each stage but stage 0."""
    return frozenset(start for start in starts(config, updates) if 0 < start < updates)


def stage_of(config: CoconutConfig, begins: Sequence[int], update: int, row: int, seed: int) -> int:
    """At which stage a row is shown in an update: the current one, or with `config.mix` any up to it."""
    current = bisect_right(begins, update) - 1
    rng = random.Random(f"{seed} {update} {row}")
    return rng.randint(0, current) if rng.random() < config.mix else current


class CoconutObjective(nn.Module):
    """The term `ce`, and with a decoder `explain`."""

    def __init__(self, model: PreTrainedModel, config: CoconutConfig, decoder: StepDecoder | None = None) -> None:
        super().__init__()
        assert (decoder is not None) == (config.explain > 0), "a decoder is there to explain, and to do nothing else"
        self.model, self.config, self.decoder = model, config, decoder

    def forward(
        self,
        question_BQ: Tensor,
        length_B: Tensor,
        thoughts_B: Tensor,
        tail_BA: Tensor,
        labels_BK: Tensor,
        steps_BNS: Tensor | None = None,
    ) -> dict[str, Tensor]:
        logits_BKV, thoughts = self.read(question_BQ, length_B, thoughts_B, tail_BA)
        ce = functional.cross_entropy(logits_BKV.float().flatten(0, 1), labels_BK.flatten(), ignore_index=IGNORED)
        if self.decoder is None or steps_BNS is None:
            return {CE: ce}
        of_steps = thoughts[self.config.thoughts_per_step - 1 :: self.config.thoughts_per_step]
        thoughts_BNd = torch.stack(of_steps, 1) if of_steps else torch.empty(len(tail_BA), 0)
        embed = self.model.get_input_embeddings()
        return {CE: ce, EXPLAIN: self.config.explain * explain(self.decoder, embed, thoughts_BNd, steps_BNS)}

    def read(
        self, question_BQ: Tensor, length_B: Tensor, thoughts_B: Tensor, tail_BA: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits BKV of what follows the thoughts, the first predicted by each row's last thought (or last token of a
        question that is not thought about), and the thoughts, Bd each, with gradients through all of them."""
        model: Any = plain(self.model)
        with without_checkpoints(model):
            thinking = Thinking(model, question_BQ, length_B, thoughts_B)
            thinking.think(None)
            logits_BKV: Tensor = thinking.answer(tail_BA, tail_BA.shape[1] + 1, hidden_states=False).logits
        return logits_BKV, thinking.thoughts


@dataclass(frozen=True)
class Staged:
    """One chain as it is shown at a stage: `head`, thoughts, then `tail`, whose last `labels` tokens are learned."""

    head: list[int]
    thoughts: int
    tail: list[int]
    labels: int
    steps: list[list[int]]
    """What the thoughts stand for."""


def staged(chain: Chain, stage: int, config: CoconutConfig, begin: Sequence[int], end: Sequence[int]) -> Staged:
    """`begin` and `end` are the tokens around the thoughts, of which `end` has one at least."""
    assert end, "the answer's first token is predicted by the one that ends the thoughts"
    silent = stage > config.max_latent_stage
    words = [] if silent else chain.steps[stage:]
    chained = [*chain.opening, *(token for step in words for token in step), *chain.closing]
    learned = [*(chained if words or not stage else []), *chain.answer]
    if not stage:
        return Staged(chain.prompt, 0, learned, len(learned), [])
    latent = min(stage, config.max_latent_stage)
    if silent and not config.pad_latents_to_max:
        latent = min(latent, len(chain.steps))
    told = chain.steps if silent else chain.steps[:stage]
    thoughts = latent * config.thoughts_per_step
    return Staged([*chain.prompt, *begin], thoughts, [*end, *learned], len(learned), told)


def longest(chain: Chain, config: CoconutConfig, ends: int) -> int:
    """Tokens and thoughts of a lesson at the stage at which it takes most room; `ends` counts those around thoughts."""
    rows = [staged(chain, stage, config, [], [0]) for stage in range(config.stages)]
    return max(len(row.head) + row.thoughts + len(row.tail) + (ends - 1) * bool(row.thoughts) for row in rows)


def coconut_batches(
    chains: Sequence[Chain],
    question_lengths: Sequence[int],
    config: CoconutConfig,
    updates: int,
    begin: Sequence[int],
    end: Sequence[int],
    pad: int,
    batch_size: int,
    seed: int,
) -> Batches:
    """Batches grouped by question length, each row at its stage of the run's `updates`. Raises as `starts` does."""
    rows_of, begins = grouped(question_lengths, batch_size, seed), starts(config, updates)

    def batch(update: int, part: int, parts: int) -> Batch:
        numbers = share(rows_of(update), part, parts)
        shown = [staged(chains[i], stage_of(config, begins, update, i, seed), config, begin, end) for i in numbers]
        tensors = staged_tensors(shown, pad)
        counts = {CE: sum(row.labels for row in shown)}
        if config.explain:
            tellers = [row.thoughts // config.thoughts_per_step for row in shown]
            tensors["steps_BNS"] = step_labels([row.steps for row in shown], tellers, chains[0].answer[-1])
            counts[EXPLAIN] = explained(tensors["steps_BNS"])
        return Batch(tensors, counts, tuple(chains[i].problem for i in numbers))

    return batch


def staged_tensors(rows: Sequence[Staged], pad: int) -> dict[str, Tensor]:
    """All padded on the right; tails come without the last place of the longest, which nothing reads."""
    labels = [[*[IGNORED] * (len(row.tail) - row.labels), *row.tail[-row.labels :]] for row in rows]
    return {
        "question_BQ": right_padded([row.head for row in rows], pad),
        "length_B": torch.tensor([len(row.head) for row in rows]),
        "thoughts_B": torch.tensor([row.thoughts for row in rows]),
        "tail_BA": right_padded([row.tail for row in rows], pad)[:, :-1],
        "labels_BK": right_padded(labels, IGNORED),
    }
