"""Who thinks, in which variants, and what comes of it.

Legend: K steps, d model width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from stillroom.activations import logits
from stillroom.decoding import Completion
from stillroom.errors import UsageError
from stillroom.students.thinking import project
from stillroom.students.thoughts.interventions import Intervention, Patch, Swap


@dataclass(frozen=True)
class Thinker:
    """A student that thinks in vectors: its last hidden state, projected, is the next position's input embedding.

    `begin` and `end_of_thoughts` are the tokens around the thoughts, empty where a method has none; `projection` is
    None where the hidden state itself is fed back (Coconut). Any of `stops` ends an answer; none means full length.
    """

    model: PreTrainedModel
    projection: nn.Module | None
    begin: tuple[int, ...]
    end_of_thoughts: tuple[int, ...]
    pad: int
    stops: tuple[int, ...]

    def embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def project(self, hidden: Tensor) -> Tensor:
        return project(self.projection, hidden)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits: what the vocabulary reads in a hidden state or in a thought."""
        return logits(self.model, hidden)


@dataclass(frozen=True)
class Variant:
    """One way to answer: after so many thoughts, or with thoughts off (None: no thoughts and no tokens around them)."""

    thoughts: int | None
    interventions: tuple[Intervention, ...] = ()

    @property
    def fork(self) -> int:
        """How many thoughts it shares with the run that nothing disturbs."""
        return min((intervention.step for intervention in self.interventions), default=self.thoughts or 0)

    @property
    def depth(self) -> int:
        """How many thoughts the undisturbed run must have consumed before all that it borrows is known."""
        return max((intervention.step for intervention in self.interventions), default=self.thoughts or 0)


@dataclass(frozen=True)
class Answer:
    """A completion, with the thoughts really consumed and the hidden states they were made of (empty if not kept)."""

    completion: Completion
    thoughts_Kd: Tensor
    hiddens_Kd: Tensor
    reference: float | None = None
    """The log-probability, in nats, of the reference variant's answer, its stop included, up to the first token in
    which this answer departs from it, that token included: what the one greedy pass can tell. None without one."""


def check(thinker: Thinker, prompts: Sequence[Sequence[int]], variants: Sequence[Variant], new_tokens: int) -> None:
    """Raises `UsageError` for what cannot be answered, before anything is computed."""
    if thinker.model.training or (thinker.projection is not None and thinker.projection.training):
        raise UsageError(
            "the student is in training mode, where dropout changes answers: call eval() on its parts first"
        )
    if new_tokens < 1:
        raise UsageError(f"new_tokens is {new_tokens}: an answer has at least one token")
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise UsageError(f"question {row} has no token: there is nothing to think about")
    for variant in variants:
        _check_variant(variant, len(prompts))
    around = len(thinker.begin) + len(thinker.end_of_thoughts) + max((v.thoughts or 0 for v in variants), default=0)
    longest = max(map(len, prompts), default=0) + around + new_tokens
    config = thinker.model.config
    holds = min(config.max_position_embeddings, getattr(config, "sliding_window", None) or math.inf)
    if longest > holds:  # within a sliding window, attention is full attention
        raise UsageError(
            f"the longest question takes {longest} positions with thoughts and answer, the model attends to "
            f"{holds}: leave it out, or ask for fewer thoughts or tokens"
        )


def _check_variant(variant: Variant, questions: int) -> None:
    if variant.thoughts is not None and variant.thoughts < 0:
        raise UsageError(f"{variant.thoughts} thoughts: expected 0 or more, or None for thoughts off")
    for intervention in variant.interventions:
        if not 0 <= intervention.step < (variant.thoughts or 0):
            raise UsageError(
                f"{type(intervention).__name__} at step {intervention.step}: this variant consumes "
                f"{variant.thoughts or 0} thoughts, whose steps count from 0"
            )
        if isinstance(intervention, Swap) and (
            len(intervention.partners) != questions or not all(0 <= p < questions for p in intervention.partners)
        ):
            raise UsageError(f"Swap needs one partner for each of the {questions} questions, by its index among them")
        if isinstance(intervention, Patch) and intervention.vector.dim() > 1 and len(intervention.vector) != questions:
            raise UsageError(
                f"Patch has {len(intervention.vector)} vectors for {questions} questions: give one or as many"
            )
