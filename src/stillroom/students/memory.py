"""How much memory training a student takes, told from its config before any weight exists.

Weights, gradients and optimizer are counted exactly by kind of parameter, on a model without storage. Activations
follow Korthikanti et al. 2022 (2205.05198, section 4): what a block keeps for its backward pass, tensor by tensor;
their 2-byte counts for GPT become sums over the shapes of a block here. A bound for one device without sharding: what
an allocator loses and what lives within one operation is left to the free share of a card.

Legend for letters in comments: h width, q width of all queries, k width of all keys, f inner width of the
feed-forward, a heads, T tokens of a row, r rank.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from stillroom.errors import UsageError
from stillroom.students.adapters import AdapterConfig, ends, targets

FLOAT32 = 4
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight: itself, an 8-bit scale for 64 of them, a float32 scale for 256 of those scales."""
GPUS_GB = (8, 12, 16, 24, 40, 48, 80, 141)
FREE = 0.1
"""The share of a card that is left to its driver, to the allocator's gaps and to what lives within one operation."""


@dataclass(frozen=True)
class Shape:
    """What a model's memory depends on. The counts of parameters add up to all of them, tied ones counted once."""

    ends: int
    """Parameters of the token embeddings and of the output head."""
    matrices: int
    """Weights of the linear layers inside the blocks, which adapters correct and 4 bits can hold."""
    rest: int
    """All others: norms, biases, tables of positions."""
    linears: tuple[tuple[int, int], ...]
    """Inputs and outputs of each of those linear layers."""
    vocabulary: int
    width: int
    layers: int
    heads: int
    queries: int
    keys: int
    feed_forward: int
    gated: bool
    """Whether the feed-forward multiplies its activation by a second projection, as in SwiGLU."""
    activation: int
    """How many tensors of the feed-forward's width the activation function keeps for its backward pass."""

    @property
    def parameters(self) -> int:
        return self.ends + self.matrices + self.rest


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak of a training step, each kind for itself."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def shape_of(config: PretrainedConfig) -> Shape:
    """The shape of the config's model, which is built without storage. Raises `UsageError` where it has no blocks."""
    with init_empty_weights():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.tie_weights()
    modules = [model.get_submodule(name) for name in targets(model)]
    linears = tuple(_sides(module) for module in modules)
    matrices = sum(inputs * outputs for inputs, outputs in linears)
    at_ends = sum({id(p): p.numel() for layer in ends(model) for p in layer.parameters()}.values())
    said: Any = config.get_text_config()
    width, heads = said.hidden_size, said.num_attention_heads
    per_head = getattr(said, "head_dim", None) or width // heads
    shared = getattr(said, "num_key_value_heads", None) or heads
    feed_forward = max(max(sides) for sides in linears if width in sides)
    return Shape(
        ends=at_ends,
        matrices=matrices,
        rest=sum(p.numel() for p in model.parameters()) - matrices - at_ends,
        linears=linears,
        vocabulary=said.vocab_size,
        width=width,
        layers=said.num_hidden_layers,
        heads=heads,
        queries=heads * per_head,
        keys=shared * per_head,
        feed_forward=feed_forward,
        gated=linears.count((width, feed_forward)) > linears.count((feed_forward, width)),
        activation=_kept_by(str(getattr(said, "hidden_act", None) or getattr(said, "activation_function", "gelu"))),
    )


def _kept_by(activation: str) -> int:
    """One tensor where the function is a single operation, several where it is put together, as GPT-2's."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ACT2FN[activation](torch.ones(8, requires_grad=True))
    return len(kept)


def _sides(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer, of which GPT-2's holds its weight the other way round."""
    assert isinstance(module.weight, Tensor)
    rows, columns = module.weight.shape
    return (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)


def estimate(
    shape: Shape,
    adapter: AdapterConfig,
    dtype: torch.dtype,
    micro_batch: int,
    tokens: int,
    checkpointing: bool,
    attention: Literal["eager", "sdpa"],
    grown: bool = False,
) -> Estimate:
    """Bytes that one step of AdamW takes on `micro_batch` rows of `tokens` tokens.

    `dtype` is that of the weights and of what is computed; what an adapter trains is float32. AdamW keeps two moments
    of each trained number in its dtype: 8 bytes in float32. With `grown` the ends are trained beside the adapter.
    Logits are counted three times in float32: themselves or their gradient, log-probabilities, and the gradient of
    those. Raises `UsageError` for a batch without a token.
    """
    if micro_batch < 1 or tokens < 1:
        raise UsageError(f"a batch of {micro_batch} rows of {tokens} tokens: there must be one of each at least")
    added = 0 if adapter.name == "full" else sum(adapter.r * (inputs + outputs) for inputs, outputs in shape.linears)
    trained = shape.parameters if adapter.name == "full" else added + grown * shape.ends
    per_trained = dtype.itemsize if adapter.name == "full" else FLOAT32
    per_token = _block(shape, adapter, dtype.itemsize, tokens, attention)
    kept = shape.layers * (shape.width * dtype.itemsize if checkpointing else per_token)
    kept += per_token if checkpointing else 0  # the one block that is computed again
    kept += _norm(shape, adapter, dtype.itemsize)  # before the head
    return Estimate(
        weights=_weights(shape, adapter, dtype) + added * FLOAT32,
        gradients=trained * per_trained,
        optimizer=2 * trained * per_trained,
        activations=micro_batch * tokens * kept,
        logits=3 * FLOAT32 * shape.vocabulary * micro_batch * tokens,
    )


def _weights(shape: Shape, adapter: AdapterConfig, dtype: torch.dtype) -> int:
    """Bytes of the model itself; beside 4-bit matrices all is float32, and the largest is unpacked when it is used."""
    if adapter.name != "qlora":
        return shape.parameters * dtype.itemsize
    unpacked = max(inputs * outputs for inputs, outputs in shape.linears) * dtype.itemsize
    return int(shape.matrices * NF4) + (shape.ends + shape.rest) * FLOAT32 + unpacked


def _norm(shape: Shape, adapter: AdapterConfig, size: int) -> int:
    """Bytes a token: what a norm reads, in float32, and what its own weight's gradient needs."""
    return shape.width * (FLOAT32 + (size if adapter.name == "full" else 0))


def _block(shape: Shape, adapter: AdapterConfig, size: int, tokens: int, attention: str) -> int:
    """Bytes a token that a block keeps for its backward pass."""
    eager = attention == "eager"
    keys = shape.queries if eager else shape.keys  # eager copies shared keys and values to every head
    kept = 2 * _norm(shape, adapter, size)
    kept += size * (shape.queries + 2 * keys)
    kept += shape.heads * tokens * (FLOAT32 + (size if size < FLOAT32 else 0)) if eager else size * shape.queries
    kept += size * shape.feed_forward * (shape.activation + 2 * shape.gated)
    copied = adapter.name != "full" and (adapter.dropout > 0 or size < FLOAT32)
    if not copied:  # what linear layers read: two norms' outputs, attention's, the activation's
        kept += size * (2 * shape.width + shape.feed_forward + (shape.queries if eager else 0))
    if adapter.name != "full":
        reading = sum(inputs for inputs, _ in shape.linears) // shape.layers
        kept += reading * FLOAT32 if copied else 0  # each A reads a copy of its own
        kept += reading if adapter.dropout else 0  # and its dropout a mask: a byte on a GPU, four on a CPU
        kept += FLOAT32 * adapter.r * len(shape.linears) // shape.layers  # what B reads
    return kept


def smallest_gpu(estimate: Estimate) -> str:
    """The smallest usual card that holds the estimate and a tenth of itself free, as `24 GB`; gigabytes are 10^9."""
    for size in GPUS_GB:
        if estimate.total <= size * 10**9 * (1 - FREE):
            return f"{size} GB"
    return f"more than {GPUS_GB[-1]} GB"
