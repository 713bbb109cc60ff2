"""Thinking with gradients: what `students.thoughts` computes when a student is asked, in passes that can be trained.

Legend: B rows, Q question tokens, K thoughts of the row that makes most, A tokens after the thoughts, T columns of the
cache, d model width.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from stillroom.errors import DataError, UsageError

PROJECTION = "projection.safetensors"


def mlp(width: int, inner: int) -> nn.Sequential:
    """The published network from a hidden state to a thought."""
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width), nn.LayerNorm(width))


def project(projection: nn.Module | None, hidden: Tensor) -> Tensor:
    """A thought of a hidden state, in its dtype; the projection may be held in a wider one than the model."""
    if projection is None:
        return hidden
    held = next(projection.parameters()).dtype
    thought: Tensor = projection(hidden.to(held))
    return thought.to(hidden.dtype)


def save_projection(made: nn.Sequential, folder: Path) -> None:
    """Write it beside the student's weights, as `projection.safetensors`."""
    save_file(made.state_dict(), folder / PROJECTION)


def load_projection(folder: Path, device: str = "cpu") -> nn.Sequential:
    """The projection of a student's folder, ready to be asked: found by its name, its widths by its tensors' shapes.

    Raises `DataError` where there is none: a student without one must not be asked for it.
    """
    if not (folder / PROJECTION).is_file():
        raise DataError(f"{folder}: no {PROJECTION}, without which this student cannot think; copy the whole folder")
    weights = load_file(folder / PROJECTION)
    inner, width = weights["0.weight"].shape
    made = mlp(width, inner).to(weights["0.weight"].dtype)
    made.load_state_dict(weights)
    return made.to(device).eval()


class Thinking:
    """A batch of questions that are being thought about, with gradients through every pass and through the cache.

    Questions are padded on the right, where no token of theirs sees the padding; what comes later is kept from seeing
    it by the mask, and counts its positions from its own question's end. `bridge_Bd` is each row's newest input, not
    yet consumed: the thought that it made last (`thoughts` has all) or, for a row that makes none, the embedding of its
    question's last token. Rows may differ in how many thoughts they make: those that are done wait for the answer.
    """

    def __init__(self, model: Any, question_BQ: Tensor, length_B: Tensor, steps_B: Tensor) -> None:
        self.model, self.steps = model, int(steps_B.max())
        told = model.config.get_text_config()
        self.places = getattr(told, "max_position_embeddings", None)
        self.window = getattr(told, "sliding_window", None)
        self.makes_BK = torch.arange(self.steps, device=steps_B.device) < steps_B[:, None]
        self.embed = model.get_input_embeddings()
        self.cache = DynamicCache()
        hidden_BQd = model.base_model(input_ids=question_BQ, past_key_values=self.cache, use_cache=True)[0]
        self.hidden_Bd = at(hidden_BQd, length_B - 1)
        self.thoughts: list[Tensor] = []
        self._stand(question_BQ, length_B, length_B - (steps_B == 0).long())

    def _stand(self, question_BQ: Tensor, length_B: Tensor, next_B: Tensor) -> None:
        """At the end of questions of these lengths, of which `next_B` tokens are consumed."""
        self.next_B = next_B
        self.seen_BT = torch.arange(question_BQ.shape[1], device=length_B.device) < next_B[:, None]
        self.bridge_Bd = self.embed(at(question_BQ, length_B - 1))

    def in_words(
        self, question_BQ: Tensor, length_B: Tensor, words_BA: Tensor, labels: int, hidden_states: bool
    ) -> Any:
        """What `answer` gives for words right after the first `length_B` tokens of each question, which are not read
        again. Ask before `think`; what is thought then knows nothing of it."""
        aside = copy.copy(self)
        aside.cache = copy.copy(self.cache)
        aside.cache.layers = [copy.copy(layer) for layer in self.cache.layers]  # they grow by new tensors, not in place
        aside._stand(question_BQ, length_B, length_B - 1)  # noqa: SLF001 (a copy of this one)
        return aside.answer(words_BA, labels, hidden_states)

    def think(self, projection: nn.Module | None) -> None:
        """Make every thought and consume all but each row's last, which `answer` reads together with what follows."""
        for step in range(self.steps):
            makes_B1 = self.makes_BK[:, step : step + 1]
            if step:
                self.hidden_Bd = self.model.base_model(**self._inputs(self.bridge_Bd[:, None], makes_B1))[0][:, 0]
            thought_Bd = project(projection, self.hidden_Bd).to(self.bridge_Bd.dtype)
            self.bridge_Bd = torch.where(makes_B1, thought_Bd, self.bridge_Bd)
            self.thoughts.append(self.bridge_Bd)

    def answer(self, answer_BA: Tensor, labels: int, hidden_states: bool) -> Any:
        """The model's output over the bridge and the answer, with logits at its last `labels` positions."""
        inputs_BAd = torch.cat([self.bridge_Bd[:, None], self.embed(answer_BA)], 1)
        every_BA = torch.ones(inputs_BAd.shape[:2], dtype=torch.bool, device=inputs_BAd.device)
        inputs = self._inputs(inputs_BAd, every_BA)
        return self.model(**inputs, logits_to_keep=labels, output_hidden_states=hidden_states)

    def _inputs(self, inputs_BAd: Tensor, real_BA: Tensor) -> dict[str, Any]:
        """Of one more pass: what is real in it is seen by what comes after it, and takes a position. Padding on the
        right of a short row would take one beyond a table of positions. Raises `UsageError` for a window of attention,
        which models count over padding too."""
        self.seen_BT = torch.cat([self.seen_BT, real_BA], 1)
        if self.window is not None and self.seen_BT.shape[1] > self.window:
            raise UsageError(
                f"this model sees {self.window} tokens back (its config's sliding_window), and {self.seen_BT.shape[1]} "
                "stand here with thoughts among them: leave the long problems out, or choose a model without a window"
            )
        positions_BA = self.next_B[:, None] + (real_BA.cumsum(1) - 1).clamp(min=0)
        if self.places is not None:
            positions_BA = positions_BA.clamp(max=self.places - 1)
        self.next_B = self.next_B + real_BA.sum(1)
        return {
            "inputs_embeds": inputs_BAd, "attention_mask": self.seen_BT, "position_ids": positions_BA,
            "past_key_values": self.cache, "use_cache": True,
        }  # fmt: skip


def plain(model: Any) -> PreTrainedModel:
    """The transformers model itself: an adapter works inside its layers, whoever calls them."""
    inner: PreTrainedModel = model if isinstance(model, PreTrainedModel) else model.get_base_model()
    return inner


@contextmanager
def without_checkpoints(model: nn.Module) -> Iterator[None]:
    """Keep activations, even where the model recomputes them: layers that do so drop the cache and only log it."""
    layers: list[Any] = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    try:
        for layer in layers:
            layer.gradient_checkpointing = False
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = True


def at(values_BT: Tensor, at_B: Tensor) -> Tensor:
    """One position of every row."""
    return values_BT[torch.arange(len(at_B), device=at_B.device), at_B]
