"""The one microscope: reads what a network holds inside, and changes it, through hooks that leave no trace behind.

Legend: L layers, B rows, T tokens, K positions of a row, D width.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stillroom.errors import DataError, UsageError, unknown


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks of any causal language model: its one list of `num_hidden_layers` modules.

    Raises `DataError` when the model has none or several such lists.
    """
    count = model.config.get_text_config().num_hidden_layers
    found = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        raise DataError(f"{type(model).__name__} has {len(found)} lists of {count} blocks, so its layers are not known")
    return found[0]


@contextmanager
def residual_stream(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Within the block, each forward pass fills the list with L+1 tensors of shape (B, T, D): the embeddings, then
    what every decoder block leaves in the residual stream. The hooks go when the block ends, also by an exception."""
    stream: list[Tensor] = []

    def enter(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        stream[:] = [(args[0] if args else kwargs["hidden_states"]).detach()]

    def leave(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        stream.append((output if isinstance(output, Tensor) else output[0]).detach())

    layers = blocks(model)
    hooks = [
        layers[0].register_forward_pre_hook(enter, with_kwargs=True),
        *(b.register_forward_hook(leave) for b in layers),
    ]
    try:
        yield stream
    finally:
        for hook in hooks:
            hook.remove()


SITES = ("residual", "attention", "mlp", "heads")


class Place(NamedTuple):
    """Where a pass is read or changed, as a tensor of shape (B, T, ·).

    `residual`: what block `layer` leaves in the residual stream, the embeddings for layer 0; `attention` and `mlp`:
    what block `layer` (from 1) adds to it; `heads`: the outputs of its heads side by side, before they are mixed.
    """

    layer: int
    site: str


Change = Callable[[Tensor], Tensor]
"""What stands at a place → what shall stand there instead."""


@contextmanager
def captured(model: PreTrainedModel, places: Iterable[Place]) -> Iterator[dict[Place, Tensor]]:
    """Within the block, each forward pass leaves in the dictionary what stood at each place. Raises `UsageError` for a
    place that the model does not have."""
    seen: dict[Place, Tensor] = {}
    with ExitStack() as hooks:
        for place in dict.fromkeys(places):

            def look(there: Tensor, place: Place = place) -> None:
                seen[place] = there.detach()

            hooks.enter_context(_hooked(model, place, look))
        yield seen


@contextmanager
def changed(model: PreTrainedModel, changes: Mapping[Place, Change]) -> Iterator[None]:
    """Within the block, every forward pass goes on with what each change makes of its place. Raises `UsageError` for a
    place that the model does not have."""
    with ExitStack() as hooks:
        for place, change in changes.items():
            hooks.enter_context(_hooked(model, place, change))
        yield


@contextmanager
def _hooked(model: PreTrainedModel, place: Place, see: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Give `see` what stands at the place in each pass; what it returns, if anything, takes its place."""

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        there = see(args[0] if args else kwargs["hidden_states"])
        if there is None:
            return None
        return ((there, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": there})

    def leave(_module: nn.Module, _args: object, output: Any) -> Any:
        there = see(output if isinstance(output, Tensor) else output[0])
        if there is None:
            return None
        return there if isinstance(output, Tensor) else (there, *output[1:])

    module = _module_of(model, place)
    if place == Place(0, "residual") or place.site == "heads":
        hook = module.register_forward_pre_hook(enter, with_kwargs=True)
    else:
        hook = module.register_forward_hook(leave)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def steered(model: PreTrainedModel, layer: int, direction_D: Tensor) -> Iterator[None]:
    """Within the block, `direction_D` is added to what block `layer` (1 is the first) leaves in the residual stream.

    Raises `UsageError` for a layer that the model does not have.
    """
    with changed(model, {Place(layer, "residual"): lambda there: there + direction_D.to(there)}):
        yield


@contextmanager
def added(
    model: PreTrainedModel, layer: int, places_BK: Tensor, vectors_BKD: Tensor, strength: float
) -> Iterator[None]:
    """Within the block, the first pass of every row adds given directions to the residual stream, matched in norm.

    After `layer` blocks, at positions `places_BK`: h' = h + strength · |h| · v / |v| (Activation Oracles, arXiv
    2512.15674). Gradients flow through both. Passes that do not hold all of these positions, as those of single new
    tokens in decoding, are left alone. Raises `DataError` unless 1 ≤ layer < the number of blocks: later layers must
    be able to read what was added.
    """
    layers = blocks(model)
    if not 1 <= layer < len(layers):
        raise DataError(f"layer {layer} of {len(layers)}: vectors are added after 1 to {len(layers) - 1} blocks")
    rows_B1 = torch.arange(len(places_BK), device=places_BK.device)[:, None]
    needed = int(places_BK.max()) + 1
    unit_BKD = nn.functional.normalize(vectors_BKD.float(), dim=-1)

    def add(hidden_BTD: Tensor) -> Tensor:
        if hidden_BTD.shape[1] < needed:
            return hidden_BTD
        here_BKD = hidden_BTD[rows_B1, places_BK]
        grown_BKD = here_BKD + (strength * here_BKD.float().norm(dim=-1, keepdim=True) * unit_BKD).to(here_BKD.dtype)
        return hidden_BTD.index_put((rows_B1.expand_as(places_BK), places_BK), grown_BKD.to(hidden_BTD.dtype))

    with changed(model, {Place(layer, "residual"): add}):
        yield


@contextmanager
def recorded(model: PreTrainedModel) -> Iterator[list[Any]]:
    """Within the block, each forward pass fills the list with what every decoder block returned, for `resumed`."""
    outputs: list[Any] = []
    layers = blocks(model)

    def begin(*_: object) -> None:
        outputs.clear()

    hooks = [
        layers[0].register_forward_pre_hook(begin),
        *(b.register_forward_hook(lambda _m, _a, output: outputs.append(output)) for b in layers),
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def resumed(model: PreTrainedModel, outputs: list[Any]) -> Iterator[None]:
    """Within the block, the first blocks are not computed but return these outputs of an earlier pass over the same
    inputs: what is changed behind them costs only what follows it. Passes must use no cache."""
    skipped = list(zip(blocks(model), outputs, strict=False))
    try:
        for block, output in skipped:
            block.forward = lambda *_, _output=output, **__: _output
        yield
    finally:
        for block, _ in skipped:
            block.__dict__.pop("forward", None)


def _module_of(model: PreTrainedModel, place: Place) -> nn.Module:
    """The module that a place is the input or the output of."""
    layers = blocks(model)
    if place.site not in SITES:
        raise UsageError(unknown("site", place.site, SITES))
    first = 0 if place.site == "residual" else 1
    if not first <= place.layer <= len(layers):
        raise UsageError(f"layer {place.layer} of {place.site}: this model has layers {first} to {len(layers)}")
    block = layers[max(place.layer, 1) - 1]
    if place.site == "residual":
        return block
    return _last_matrix(block, "mlp" if place.site == "mlp" else "att")


def _last_matrix(block: nn.Module, part: str) -> nn.Module:
    """The matrix through which attention or MLP writes to the stream. Some architectures add the stream within the
    module itself, so that its output is no contribution of its own; this matrix's always is."""
    found = [child for name, child in block.named_children() if part in name.lower() and "norm" not in name.lower()]
    matrices = [m for child in found for m in child.modules() if getattr(getattr(m, "weight", None), "ndim", 0) == 2]
    if len(found) != 1 or not matrices:
        raise DataError(f"{type(block).__name__}: which of its modules is its {part} cannot be told from their names")
    return matrices[-1]


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, the model computes attention such that its weights can be told (`output_attentions=True`)."""
    own = model.config._attn_implementation  # noqa: SLF001 (transformers has no public name for what is set)
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(own)


def heads(model: PreTrainedModel) -> int:
    """The number of attention heads of each layer."""
    return int(model.config.get_text_config().num_attention_heads)


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm between the last block and the unembedding: the module of the base model that is called last.

    Raises `DataError` when it cannot be told.
    """
    direct = [m for m in model.base_model.children() if not list(m.children()) and "norm" in type(m).__name__.lower()]
    if not direct:
        raise DataError(f"{type(model).__name__}: no final norm was found beside the decoder blocks")
    return direct[-1]


@torch.inference_mode()
def unembed(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits of residual-stream vectors (…, D): final norm, then the output embedding (the logit lens)."""
    return logits(model, final_norm(model)(hidden))


def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits (…, V) of normed hidden states (…, D): by the output embedding, and then rescaled or capped in the
    families that do so (`logit_scale` of Cohere, `logits_scaling` of Granite, `final_logit_softcapping` of Gemma 2)."""
    head, told = model.get_output_embeddings(), model.config.get_text_config()  # type: ignore[no-untyped-call]
    assert head is not None, "a causal language model has an output embedding"
    found = torch.as_tensor(head(hidden))
    if scale := getattr(told, "logit_scale", None):
        found = found * scale
    if divisor := getattr(told, "logits_scaling", None):
        found = found / divisor
    if cap := getattr(told, "final_logit_softcapping", None):
        found = torch.tanh(found / cap) * cap
    return found
