"""CODI (Shen et al. 2025, arXiv 2502.21074): one model reads the chain in words and learns to think it in vectors.

    L = α CE(student) + β KD + γ CE(teacher)

The teacher is the same weights on question, chain and answer; the student on question, k thoughts and answer. KD pulls
the student's hidden states at the token before the answer's value to the teacher's, in every layer. The teacher runs
once: its pass carries the gradient of its own loss, and a detached copy of its states is the target.

As published: GPT-2 k 6, α β γ 1, learning rate 3e-3, 40 epochs; Llama-3.2-1B k 6, β 20, 8e-4, 10 epochs; both LoRA of
r 128 and α 32, batch 128, the chain's last step dropped.

Legend: B rows, Q question positions (padded on the left), S teacher positions, A answer positions, d width, L layers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from stillroom.config import Config
from stillroom.students.batches import IGNORED, grouped
from stillroom.students.chains import Chain
from stillroom.training import Batch, Batches

DISTANCES = {"smooth_l1": functional.smooth_l1_loss, "l1": functional.l1_loss, "l2": functional.mse_loss}


class CodiConfig(Config):
    thoughts: int = Field(6, ge=0)
    """How many are consumed before the answer; 0, with the student's pauses, is the filler of the same supervision."""
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(1.0, ge=0)
    gamma: float = Field(1.0, ge=0)
    distance: Literal["smooth_l1", "l1", "l2"] = "smooth_l1"
    projection: bool = True
    """A two-layer network and a LayerNorm between a hidden state and the thought that is made of it."""
    drop_last_step: bool = True
    """The teacher's chain ends before its last step, which would tell it the answer."""


def projection(width: int) -> nn.Sequential:
    """Hidden state → thought, both of the model's width."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))


class CodiObjective(nn.Module):
    """The terms `student`, `distil` and `teacher`; a thought takes a position and is seen by all that follows."""

    def __init__(self, model: PreTrainedModel, projection: nn.Module | None, config: CodiConfig) -> None:
        super().__init__()
        self.model, self.projection, self.config = model, projection, config

    def forward(
        self,
        question_BQ: Tensor,
        mask_BQ: Tensor,
        tail_BA: Tensor,
        tail_labels_BA: Tensor,
        tail_at_B: Tensor,
        teacher_BS: Tensor,
        teacher_labels_BS: Tensor,
        teacher_at_B: Tensor,
        keep_K: Tensor,
    ) -> dict[str, Tensor]:
        config = self.config
        told = self.model(
            input_ids=teacher_BS, output_hidden_states=config.beta > 0, logits_to_keep=keep_K, use_cache=False
        )
        terms = {"teacher": config.gamma * _ce(told.logits, teacher_labels_BS[:, keep_K + 1])}
        thought = think(self.model, self.projection, question_BQ, mask_BQ, config.thoughts)
        answered = thought.go_on(self.model, tail_BA, output_hidden_states=config.beta > 0)
        terms["student"] = config.alpha * _ce(answered.logits, tail_labels_BA)
        if config.beta:
            pairs = zip(told.hidden_states, answered.hidden_states, strict=True)
            distances = [self.distance(_at(t, teacher_at_B), _at(s, tail_at_B)) for t, s in pairs]
            terms["distil"] = config.beta * torch.stack(distances).mean()
        return terms

    def distance(self, teacher_Bd: Tensor, student_Bd: Tensor) -> Tensor:
        """Of one layer's states, in units of the spread of the teacher's over the batch."""
        target_Bd = teacher_Bd.detach().float()
        return DISTANCES[self.config.distance](student_Bd.float(), target_Bd) / target_Bd.std().clamp(min=1e-6)


@dataclasses.dataclass
class Thinking:
    """A batch that has read its questions and thought so far."""

    cache: Any
    mask_BT: Tensor
    hidden_Bd: Tensor

    def go_on(self, model: PreTrainedModel, tail_BA: Tensor, output_hidden_states: bool) -> Any:
        """One pass over what follows; the rows' padding on its right is seen by no token that counts."""
        mask_BT = torch.cat([self.mask_BT, torch.ones_like(tail_BA)], 1)
        return model(
            input_ids=tail_BA,
            attention_mask=mask_BT,
            position_ids=positions(mask_BT)[:, -tail_BA.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
            output_hidden_states=output_hidden_states,
        )


def think(
    model: PreTrainedModel, projection: nn.Module | None, question_BQ: Tensor, mask_BQ: Tensor, thoughts: int
) -> Thinking:
    """Read the questions, then consume `thoughts` thoughts one after the other, with gradients through all of them."""
    mask_BT, inputs = mask_BQ, {"input_ids": question_BQ}
    cache = DynamicCache(config=model.config.get_text_config())
    for step in range(thoughts + 1):
        length = next(iter(inputs.values())).shape[1]
        out = model(
            **inputs,
            attention_mask=mask_BT,
            position_ids=positions(mask_BT)[:, -length:],
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
            logits_to_keep=1,
        )
        hidden_Bd = out.hidden_states[-1][:, -1]
        if step < thoughts:
            thought_Bd = hidden_Bd if projection is None else projection(hidden_Bd)
            inputs = {"inputs_embeds": thought_Bd[:, None]}
            mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], 1)
    return Thinking(cache, mask_BT, hidden_Bd)


def positions(mask_BT: Tensor) -> Tensor:
    """Each position's number among those that are no padding."""
    return (mask_BT.cumsum(1) - 1).clamp(min=0)


def _ce(logits_BAV: Tensor, labels_BA: Tensor) -> Tensor:
    """Mean negative log-likelihood of `labels`, each of which stands at the position that predicts it."""
    return functional.cross_entropy(logits_BAV.float().flatten(0, 1), labels_BA.flatten(), ignore_index=IGNORED)


def _at(states_BTd: Tensor, at_B: Tensor) -> Tensor:
    return states_BTd[torch.arange(len(at_B), device=at_B.device), at_B]


def codi_batches(
    chains: Sequence[Chain],
    question_lengths: Sequence[int],
    config: CodiConfig,
    begin: Sequence[int],
    end: Sequence[int],
    pad: int,
    batch_size: int,
    seed: int,
) -> Batches:
    """Batches of chains, grouped by question length; `begin` and `end` are the tokens around the thoughts."""
    rows_of = grouped(question_lengths, batch_size, seed)

    def batch(update: int, part: int, parts: int) -> Batch:
        numbers = rows_of(update)
        rows = [chains[i] for i in numbers[part * len(numbers) // parts : (part + 1) * len(numbers) // parts]]
        tensors = student_tensors(rows, begin, end, pad) | teacher_tensors(rows, config.drop_last_step, pad)
        labels = {name: int((tensors[f"{key}_labels_B{axis}"] != IGNORED).sum()) for name, key, axis in TERMS}
        counts = {"teacher": labels["teacher"], "student": labels["student"]}
        return Batch(
            tensors, counts | ({"distil": len(rows)} if config.beta else {}), tuple(row.problem for row in rows)
        )

    return batch


TERMS = (("teacher", "teacher", "S"), ("student", "tail", "A"))


def student_tensors(rows: Sequence[Chain], begin: Sequence[int], end: Sequence[int], pad: int) -> dict[str, Tensor]:
    """Questions padded on the left, and what follows the thoughts padded on the right.

    The tail begins with a token that predicts the answer's first: `end`, or where there is none the question's last.
    """
    heads = [[*row.prompt, *begin] for row in rows]
    ends = [list(end) or head[-1:] for head in heads]
    heads = [head if end else head[:-1] for head in heads]
    longest = max(map(len, heads))
    tail = max(len(stop) + len(row.answer) for stop, row in zip(ends, rows, strict=True)) - 1
    question_BQ, mask_BQ = torch.full((len(rows), longest), pad), torch.zeros(len(rows), longest, dtype=torch.long)
    tail_BA, labels_BA = torch.full((len(rows), tail), pad), torch.full((len(rows), tail), IGNORED)
    for i, (head, stop, row) in enumerate(zip(heads, ends, rows, strict=True)):
        question_BQ[i, longest - len(head) :] = torch.tensor(head)
        mask_BQ[i, longest - len(head) :] = 1
        text = [*stop, *row.answer]
        tail_BA[i, : len(text) - 1] = torch.tensor(text[:-1])
        labels_BA[i, len(stop) - 1 : len(text) - 1] = torch.tensor(row.answer)
    at = [len(stop) + row.value_at - 1 for stop, row in zip(ends, rows, strict=True)]
    return {
        "question_BQ": question_BQ, "mask_BQ": mask_BQ, "tail_BA": tail_BA, "tail_labels_BA": labels_BA,
        "tail_at_B": torch.tensor(at),
    }  # fmt: skip


def teacher_tensors(rows: Sequence[Chain], drop_last_step: bool, pad: int) -> dict[str, Tensor]:
    """The whole chain in words, padded on the right; labels are all that follows the question."""
    texts = [
        [*row.opening, *(token for step in row.steps[: -1 if drop_last_step else None] for token in step), *row.closing]
        for row in rows
    ]
    longest = max(len(row.prompt) + len(text) + len(row.answer) for row, text in zip(rows, texts, strict=True))
    teacher_BS, labels_BS = torch.full((len(rows), longest), pad), torch.full((len(rows), longest), IGNORED)
    at = []
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        whole, start = [*row.prompt, *text, *row.answer], len(row.prompt)
        teacher_BS[i, : len(whole)] = torch.tensor(whole)
        labels_BS[i, start : len(whole)] = torch.tensor(whole[start:])
        at.append(start + len(text) + row.value_at - 1)
    first = min(len(row.prompt) for row in rows)
    return {
        "teacher_BS": teacher_BS, "teacher_labels_BS": labels_BS, "teacher_at_B": torch.tensor(at),
        "keep_K": torch.arange(first - 1, longest - 1),
    }  # fmt: skip
