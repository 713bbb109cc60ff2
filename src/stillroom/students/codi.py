"""CODI (Shen et al. 2025, arXiv 2502.21074): one model reads a chain in words and learns to think it in vectors.

    L = α CE(student) + β KD + γ CE(teacher)

The teacher reads question, chain and answer; the student, of the same weights, question, k thoughts and answer. KD
draws the student's hidden states at the token before the answer's value to the teacher's, in every layer. SIM-CoT's
auxiliary decoder (`step_decoder`) may be added: thought i must then say step i of the teacher's chain.

The public code runs the teacher twice, leaves masks and position ids out of the thoughts' passes, and finds the value
by the model's name; here the question is read once, for teacher and student alike (under dropout both see it with the
same units gone), no later pass is without mask and positions, and the value's place is given.

Legend: B rows, O rows of an update's other parts, Q question tokens, S the teacher's (in `steps_BNS` a step's), W
words after the question, A answer tokens, E tokens around the thoughts, K positions that predict a label, N thoughts,
V vocabulary, d model width.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from stillroom.config import Config
from stillroom.students.batches import IGNORED, Example, grouped, right_padded, share
from stillroom.students.chains import Chain
from stillroom.students.step_decoder import EXPLAIN, StepDecoder, explain, explained, step_labels
from stillroom.students.thinking import Thinking, at, mlp, plain, without_checkpoints
from stillroom.training import Batch, Batches

DISTANCES = {"smooth_l1": functional.smooth_l1_loss, "l1": functional.l1_loss, "l2": functional.mse_loss}


class CodiConfig(Config):
    """The defaults are as published for GPT-2; for Llama-3.2-1B `beta` is 20 (appendix F and the code).

    Published beside them: LoRA of rank 128 and alpha 32, dropout .1, AdamW with weight decay .1, cosine with 3 %
    warm-up, batch 128, gradient clipped to 2, bfloat16; learning rate 3e-3 over 40 epochs for GPT-2, 8e-4 over 10 for
    Llama. There the tokens around the thoughts were not taught.
    """

    thoughts: int = Field(6, ge=0)
    """k: how many are consumed between question and answer."""
    alpha: float = Field(1.0, ge=0)
    """Weight of the cross-entropy of the answer after the thoughts."""
    beta: float = Field(1.0, ge=0)
    """Weight of the distillation between hidden states; 0 leaves it out."""
    gamma: float = Field(1.0, ge=0)
    """Weight of the cross-entropy of the chain in words and its answer."""
    distance: Literal["smooth_l1", "l1", "l2"] = "smooth_l1"
    projection: Literal["mlp", "none"] = "mlp"
    """What makes a thought of a hidden state; with `none` the state is the thought."""
    projection_width: int | None = Field(None, ge=1)
    """Inner width of `mlp`; the model's where it is not given."""
    drop_last_step: bool = True
    """The teacher's chain ends before its last step, which would give the answer away."""
    teach_ends: bool = True
    """Train the embeddings of the tokens around the thoughts; as published they stay as they are."""
    filler: bool = False
    """Consume k pause tokens in place of thoughts, without recurrence: the same supervision, no thinking. When asked,
    such a student reads them with the tokens around them as part of its prompt."""

    explain: float = Field(0.0, ge=0)
    """Weight of SIM-CoT's decoder of steps; 1 as published, and no decoder where it is 0."""

    @model_validator(mode="after")
    def _thoughts_explain(self) -> "CodiConfig":
        if self.explain and not self.steps:
            raise ValueError("explain: there are no thoughts that a decoder could read")
        return self

    @property
    def steps(self) -> int:
        """How many thoughts are made of hidden states."""
        return 0 if self.filler else self.thoughts


def projection(config: CodiConfig, width: int, seed: int) -> nn.Sequential | None:
    """Hidden state → thought for a model of this width, or None where states are thoughts."""
    if config.projection == "none" or not config.steps:
        return None
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return mlp(width, config.projection_width or width)


class CodiObjective(nn.Module):
    """The terms `student`, `teacher`, with β > 0 `distil` and with a decoder `explain`, all from one forward.

    `ends` are the tokens around the thoughts, whose embeddings stay as they are unless the config teaches them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        projection: nn.Module | None,
        config: CodiConfig,
        ends: Sequence[int] = (),
        decoder: StepDecoder | None = None,
    ) -> None:
        super().__init__()
        assert (decoder is not None) == (config.explain > 0), "a decoder is there to explain, and to do nothing else"
        self.model, self.projection, self.config, self.decoder = model, projection, config, decoder
        self.frozen = [] if config.teach_ends else sorted(set(ends))
        weight = model.get_input_embeddings().get_parameter("weight")
        self.frozen_Ed = weight.detach()[self.frozen].clone()
        if self.frozen and weight.requires_grad:
            weight.register_hook(self._without_frozen)  # type: ignore[no-untyped-call]

    def _without_frozen(self, grad_Vd: Tensor) -> Tensor:
        return grad_Vd.index_fill(0, torch.tensor(self.frozen, device=grad_Vd.device), 0.0)

    @torch.no_grad()
    def hold_ends(self) -> None:
        """Put the frozen embeddings back, which weight decay moves though they have no gradient. Call before saving."""
        if not self.frozen:
            return
        weight = self.model.get_input_embeddings().get_parameter("weight")
        self.frozen_Ed = self.frozen_Ed.to(weight.device)
        if not torch.equal(weight[self.frozen], self.frozen_Ed):
            weight[self.frozen] = self.frozen_Ed

    def forward(
        self,
        question_BQ: Tensor,
        length_B: Tensor,
        answer_BA: Tensor,
        labels_BK: Tensor,
        value_at_B: Tensor,
        asked_B: Tensor,
        words_BW: Tensor,
        words_labels_BK: Tensor,
        words_at_B: Tensor,
        others_OS: Tensor | None = None,
        others_at_O: Tensor | None = None,
        steps_BNS: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What `codi_batches` makes → the weighted terms, each a mean: over labels in nats, and over rows."""
        config, distils = self.config, self.config.beta > 0
        self.hold_ends()
        model: Any = plain(self.model)
        with without_checkpoints(model):
            thinking = Thinking(model, question_BQ, length_B, torch.full_like(length_B, config.steps))
            told = thinking.in_words(question_BQ, asked_B, words_BW, words_labels_BK.shape[1], distils)
            thinking.think(self.projection)
            answered = thinking.answer(answer_BA, labels_BK.shape[1], distils)
        terms = {
            "student": config.alpha * _cross_entropy(answered.logits, labels_BK),
            "teacher": config.gamma * _cross_entropy(told.logits, words_labels_BK),
        }
        if distils:
            targets = [at(states_BWd, words_at_B).detach().float() for states_BWd in told.hidden_states]
            spread_by = targets if others_OS is None else self._widened(model, targets, others_OS, others_at_O)
            ends = answer_BA.shape[1] + 1 - labels_BK.shape[1]
            own = [at(states_BAd, ends + value_at_B).float() for states_BAd in answered.hidden_states]
            terms["distil"] = config.beta * distillation(own, targets, spread_by, config.distance)
        if self.decoder is not None and steps_BNS is not None:
            thoughts_BNd = torch.stack(thinking.thoughts, 1)
            terms[EXPLAIN] = config.explain * explain(self.decoder, thinking.embed, thoughts_BNd, steps_BNS)
        return terms

    @torch.no_grad()
    def _widened(
        self, model: Any, targets: list[Tensor], others_OS: Tensor, others_at_O: Tensor | None
    ) -> list[Tensor]:
        """The targets of the whole update, whose spread no part knows alone: read in as many rows at once as a part."""
        assert others_at_O is not None
        body, found = model.base_model, [targets]
        size = len(targets[0])
        for ids_BS, at_B in zip(torch.split(others_OS, size), torch.split(others_at_O, size), strict=True):
            states = body(input_ids=ids_BS, output_hidden_states=True, use_cache=False).hidden_states
            found.append([at(states_BSd, at_B).float() for states_BSd in states])
        return [torch.cat(layer) for layer in zip(*found, strict=True)]


def distillation(
    own: Sequence[Tensor], targets: Sequence[Tensor], spread_by: Sequence[Tensor], distance: str
) -> Tensor:
    """L_KD: the mean over layers (the embeddings among them), rows and coordinates of a distance between hidden states.

    Bd each. A layer's distance is divided by the standard deviation of all numbers in `spread_by`, the teacher's states
    of the whole update; by its square for `l2`, so that every distance is free of units, as in the public code.
    """
    layers = []
    for own_Bd, target_Bd, spread_Bd in zip(own, targets, spread_by, strict=True):
        unit = spread_Bd.std() ** (2 if distance == "l2" else 1)
        layers.append(DISTANCES[distance](own_Bd, target_Bd) / unit)
    return torch.stack(layers).mean()


def _cross_entropy(logits_BKV: Tensor, labels_BK: Tensor) -> Tensor:
    return functional.cross_entropy(logits_BKV.float().flatten(0, 1), labels_BK.flatten(), ignore_index=IGNORED)


def codi_batches(
    chains: Sequence[Chain],
    question_lengths: Sequence[int],
    config: CodiConfig,
    begin: Sequence[int],
    end: Sequence[int],
    pad: int,
    batch_size: int,
    seed: int,
    pauses: Sequence[int] = (),
) -> Batches:
    """Batches grouped by *question* length, as those of other students are, so that all see the same problems.

    `begin` and `end` are the tokens around the thoughts, `pauses` the k that a filler consumes. With β > 0 an update in
    several parts costs each of them the teacher's pass over the other parts' rows, without gradients.
    """
    assert len(pauses) == config.thoughts * config.filler, "a filler has as many pauses as it would have thoughts"
    rows_of = grouped(question_lengths, batch_size, seed)

    def batch(update: int, part: int, parts: int) -> Batch:
        numbers = rows_of(update)
        first, last = part * len(numbers) // parts, (part + 1) * len(numbers) // parts
        rows = [chains[i] for i in share(numbers, part, parts)]
        texts = [in_words(row, config) for row in rows]
        counts = {"student": sum(len(row.answer) for row in rows), "teacher": sum(text.labels for text in texts)}
        tensors = student_tensors(rows, [*begin, *pauses], end, pad) | teacher_tensors(rows, texts, pad)
        if config.explain:
            told = [told_steps(row, config) for row in rows]
            tensors["steps_BNS"] = step_labels(told, [config.thoughts] * len(rows), chains[0].answer[-1])
            counts[EXPLAIN] = explained(tensors["steps_BNS"])
        if config.beta:
            counts["distil"] = len(rows)
            others = [chains[i] for i in [*numbers[:first], *numbers[last:]]]
            tensors |= others_tensors(others, [in_words(row, config) for row in others], pad) if others else {}
        return Batch(tensors, counts, tuple(row.problem for row in rows))

    return batch


def longest(row: Chain, config: CodiConfig, ends: int) -> int:
    """Tokens of the longer of the two texts of a lesson; `ends` counts those around the thoughts."""
    return max(in_words(row, config).length, len(row.prompt) + ends + config.thoughts + len(row.answer))


def in_words(row: Chain, config: CodiConfig) -> Example:
    """What the teacher reads, its loss on all that follows the question."""
    words = [token for step in told_steps(row, config) for token in step]
    return Example(row.problem, row.prompt, [*row.opening, *words, *row.closing, *row.answer])


def told_steps(row: Chain, config: CodiConfig) -> list[list[int]]:
    return row.steps[:-1] if config.drop_last_step else row.steps


def student_tensors(rows: Sequence[Chain], begin: Sequence[int], end: Sequence[int], pad: int) -> dict[str, Tensor]:
    """What stands before the thoughts and what follows them; a label's token stands one place before its label."""
    questions = [[*row.prompt, *begin] for row in rows]
    return {
        "question_BQ": right_padded(questions, pad),
        "length_B": torch.tensor([len(question) for question in questions]),
        "answer_BA": right_padded([[*end, *row.answer[:-1]] for row in rows], pad, 1),
        "labels_BK": right_padded([row.answer for row in rows], IGNORED, 1),
        "value_at_B": torch.tensor([row.value_at for row in rows]),
    }


def teacher_tensors(rows: Sequence[Chain], texts: Sequence[Example], pad: int) -> dict[str, Tensor]:
    """How long the question itself is, and the words after it, in one place more than are read: all are labels."""
    words_BK = right_padded([text.completion for text in texts], pad)
    places = [at + 1 - len(row.prompt) for row, at in zip(rows, _before_values(rows, texts), strict=True)]
    return {
        "asked_B": torch.tensor([len(row.prompt) for row in rows]),
        "words_BW": words_BK[:, :-1],
        "words_labels_BK": right_padded([text.completion for text in texts], IGNORED),
        "words_at_B": torch.tensor(places),
    }


def others_tensors(rows: Sequence[Chain], texts: Sequence[Example], pad: int) -> dict[str, Tensor]:
    """Rows that are read for their targets alone, and no further."""
    places = _before_values(rows, texts)
    whole = [[*text.prompt, *text.completion][: at + 1] for text, at in zip(texts, places, strict=True)]
    return {"others_OS": right_padded(whole, pad), "others_at_O": torch.tensor(places)}


def _before_values(rows: Sequence[Chain], texts: Sequence[Example]) -> list[int]:
    """The teacher's place of the last token that leads to the answer's value."""
    return [text.length - len(row.answer) + row.value_at - 1 for row, text in zip(rows, texts, strict=True)]
