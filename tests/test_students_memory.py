"""Parameters, gradients and moments are counted to the byte; activations are held against what autograd keeps."""

import functools
import itertools
from dataclasses import astuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from architectures import NAMES, TIED, config, tiny, tokens
from stillroom.errors import UsageError
from stillroom.quantised import four_bits
from stillroom.students.adapters import AdapterConfig, attach
from stillroom.students.memory import Estimate, Shape, estimate, shape_of, smallest_gpu

FULL, LORA, QLORA = (AdapterConfig(name=name, dropout=0.0) for name in ("full", "lora", "qlora"))
DROPPING = AdapterConfig(name="lora", dropout=0.1)
FOUR_LAYERS = {"bloom": {"n_layer": 4}, "gpt2": {"n_layer": 4}}
STEP: dict[str, Any] = {
    "adapter": LORA, "dtype": torch.float32, "micro_batch": 2, "tokens": 16, "checkpointing": False,
    "attention": "eager",
}  # fmt: skip


def kept_for_backward(model: nn.Module, ids_BT: Tensor) -> int:
    """Bytes of all storages that autograd keeps between forward and backward, the model's own left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits.float()
        nn.functional.cross_entropy(logits_BTV.flatten(0, 1), ids_BT.flatten())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@functools.cache
def four_layers(name: str) -> Shape:
    return shape_of(config(name, **FOUR_LAYERS.get(name, {"num_hidden_layers": 4})))


def told(name: str, **changes: Any) -> Estimate:
    return estimate(four_layers(name), **{**STEP, **changes})


def measured(name: str, adapter: AdapterConfig, dtype: torch.dtype, attention: str) -> int:
    """What is kept on the CPU for the batch of `STEP`."""
    model = tiny(name, attention=attention, **FOUR_LAYERS.get(name, {"num_hidden_layers": 4})).to(dtype)
    return kept_for_backward(attach(model, adapter, grown=False).train(), tokens(2, 16))


def of_activations(told: Estimate) -> float:
    """What the estimate says is kept: activations and the log-probabilities, one of three parts of the logits."""
    return told.activations + told.logits / 3


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_counted_exactly_and_by_kind(name: str) -> None:
    model, shape = tiny(name), shape_of(config(name))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.ends == 64 * 32 * (1 if name in TIED else 2)
    in_blocks = [p.numel() for n, p in model.named_parameters() if p.ndim == 2 and (".layers." in n or ".h." in n)]
    assert shape.matrices == sum(in_blocks)
    assert len(shape.linears) == len(in_blocks)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("r", [1, 8])
def test_what_an_adapter_trains_is_counted_exactly(name: str, r: int) -> None:
    for grown in (False, True):
        adapter = AdapterConfig(name="lora", r=r)
        model = attach(tiny(name), adapter, grown)
        said = estimate(shape_of(config(name)), **{**STEP, "adapter": adapter}, grown=grown)
        assert said.gradients == 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert said.weights == 4 * sum(p.numel() for p in model.parameters())


def test_a_published_size_is_told_without_its_weights() -> None:
    llama3_8b = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, tie_word_embeddings=False,
    )  # fmt: skip
    shape = shape_of(llama3_8b)
    assert shape.parameters == 8_030_261_248
    assert shape.ends == 2 * 128256 * 4096
    assert shape.matrices == 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    assert shape.rest == (2 * 32 + 1) * 4096
    assert (shape.queries, shape.keys, shape.gated, shape.activation) == (4096, 1024, True, 1)


def test_the_shapes_of_five_architectures() -> None:
    def of(name: str) -> tuple[Any, ...]:
        shape = shape_of(config(name))
        return shape.queries, shape.keys, shape.feed_forward, shape.gated, shape.activation

    assert of("llama") == (32, 32, 64, True, 1)
    assert of("qwen2") == (32, 16, 64, True, 1)
    assert of("gemma") == (64, 16, 64, True, 1)
    assert of("bloom") == (32, 32, 128, False, 1)
    assert of("gpt2") == (32, 32, 128, False, 4)
    assert shape_of(config("gpt2")).linears == ((32, 96), (32, 32), (32, 128), (128, 32)) * 2
    assert shape_of(config("bloom")).linears == ((32, 96), (32, 32), (32, 128), (128, 32)) * 2


def test_an_estimate_worked_by_hand() -> None:
    shape = shape_of(config("llama"))  # 24,736 parameters, blocks of width 32 and 64, 4 heads
    said = estimate(shape, FULL, torch.float32, 3, 10, False, "sdpa")
    assert astuple(said)[:3] == (4 * 24736, 4 * 24736, 8 * 24736)
    norms, attention, gate, read = 2 * 32 * 8, 4 * 4 * 32, 3 * 4 * 64, 4 * (2 * 32 + 64)
    assert said.activations == 30 * (2 * (norms + attention + gate + read) + 32 * 8)
    assert said.logits == 30 * 64 * 12
    assert said.total == sum(astuple(said))
    eager = estimate(shape, FULL, torch.float32, 3, 10, False, "eager")
    assert eager.activations - said.activations == 30 * 2 * (4 * 10 * 4)  # 4 heads, each 10 probabilities a token
    checked = estimate(shape, FULL, torch.float32, 3, 10, True, "sdpa")
    assert checked.activations == 30 * (2 * 4 * 32 + (norms + attention + gate + read) + 32 * 8)


def test_dropout_before_an_adapter_costs_a_copy_and_a_mask_of_what_each_layer_reads() -> None:
    shape = shape_of(config("llama"))
    still, dropping = (estimate(shape, **{**STEP, "adapter": adapter}).activations for adapter in (LORA, DROPPING))
    read = 6 * 32 + 64  # by each of seven layers; without dropout four tensors of 4 bytes serve them all
    assert dropping - still == 2 * 16 * 2 * (read * (4 + 1) - 4 * (3 * 32 + 64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_gradients_and_moments_are_those_of_a_real_step(adapter: AdapterConfig, dtype: torch.dtype) -> None:
    model = attach(tiny("qwen2").to(dtype), adapter, grown=False).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    optimizer.step()
    said = estimate(shape_of(config("qwen2")), **{**STEP, "adapter": adapter, "dtype": dtype})
    assert said.gradients == sum(p.grad.nbytes for p in trained)
    moments = [slot[key] for slot in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert said.optimizer == sum(moment.nbytes for moment in moments)
    assert said.weights == sum(p.nbytes for p in model.parameters())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_activations_of_a_llama_are_told_within_a_twentieth(adapter: AdapterConfig, attention: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        said = told("llama", adapter=adapter, dtype=dtype, attention=attention)
        assert of_activations(said) == pytest.approx(measured("llama", adapter, dtype, attention), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapter", [FULL, LORA, DROPPING], ids=["full", "lora", "dropout"])
@pytest.mark.parametrize("name", NAMES)
def test_activations_are_told_within_a_factor_of_one_and_a_half(
    name: str, adapter: AdapterConfig, dtype: torch.dtype
) -> None:
    for attention in ("eager", "sdpa") if name != "bloom" else ("eager",):
        said = told(name, adapter=adapter, dtype=dtype, attention=attention)
        assert 1 / 1.5 < of_activations(said) / measured(name, adapter, dtype, attention) < 1.5


def test_the_quadratic_term_of_eager_attention_is_the_measured_one() -> None:
    def over(kept: dict[int, float]) -> float:
        return kept[48] - 2 * kept[24] + kept[0]  # what neither a constant nor a linear term explains

    model, shape = tiny("llama"), shape_of(config("llama"))
    real = {t: kept_for_backward(model, tokens(2, t)) if t else 0 for t in (0, 24, 48)}
    said = {
        t: of_activations(estimate(shape, **{**STEP, "adapter": FULL, "tokens": t})) if t else 0 for t in (0, 24, 48)
    }
    assert over(said) == 2 * 2 * 4 * 4 * (48**2 - 2 * 24**2)  # rows, layers, heads, bytes
    assert over(said) == pytest.approx(over(real), rel=0.02)


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block() -> None:
    model = tiny("llama", num_hidden_layers=4).train()
    whole = kept_for_backward(model, tokens(2, 16))
    model.enable_input_require_grads()
    model.activation_checkpointing_enable({"use_reentrant": True})
    kept = kept_for_backward(model, tokens(2, 16))
    said = of_activations(told("llama", adapter=FULL, checkpointing=True))
    assert kept < said < kept + whole / 4 * 1.1


def test_4_bit_weights_take_what_is_told(tmp_path: Any) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 512}
    tiny("llama", **wide).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=four_bits("cpu"), dtype=torch.float32)
    states = [p.quant_state for p in model.parameters() if p.dtype == torch.uint8]
    scales = sum(state.absmax.nbytes + state.state2.absmax.nbytes for state in states)
    shape = shape_of(config("llama", **wide))
    adapter = AdapterConfig(name="qlora", r=1)
    added = 4 * sum(inputs + outputs for inputs, outputs in shape.linears)
    unpacked = 4 * 256 * 512
    half = estimate(shape, **{**STEP, "adapter": adapter, "dtype": torch.bfloat16}).weights
    assert estimate(shape, **{**STEP, "adapter": adapter}).weights - half == unpacked / 2  # the rest stays in float32
    said = estimate(shape, **{**STEP, "adapter": adapter}).weights - added - unpacked
    assert said == pytest.approx(sum(p.nbytes for p in model.parameters()) + scales, rel=0.001)


MORE: dict[str, tuple[Any, ...]] = {
    "micro_batch": (1, 2, 64),
    "tokens": (1, 16, 17, 4096),
    "dtype": (torch.bfloat16, torch.float32),
    "checkpointing": (True, False),
    "attention": ("sdpa", "eager"),
    "adapter": tuple(AdapterConfig(name="lora", r=r) for r in (1, 8, 64)),
    "grown": (False, True),
}


@pytest.mark.parametrize("adapter", [FULL, LORA, QLORA, DROPPING], ids=["full", "lora", "qlora", "dropout"])
@pytest.mark.parametrize("argument", MORE)
def test_more_of_anything_never_takes_less(argument: str, adapter: AdapterConfig) -> None:
    for name in NAMES:
        series = [told(name, **{"adapter": adapter, argument: value}) for value in MORE[argument]]
        for less, more in itertools.pairwise(series):
            assert all(a <= b for a, b in zip(astuple(less), astuple(more), strict=True)), (name, argument)
            assert less.total < more.total or (argument, adapter) == ("grown", FULL)


def test_a_larger_model_takes_more_and_fewer_trained_numbers_less() -> None:
    def total(adapter: AdapterConfig = FULL, **settings: int) -> int:
        shape = shape_of(config("llama", settings.pop("vocabulary", 64), **settings))
        return estimate(shape, **{**STEP, "adapter": adapter}).total

    for setting in ({"hidden_size": 64}, {"intermediate_size": 128}, {"num_hidden_layers": 3}, {"vocabulary": 128}):
        assert total(**setting) > total()
    wide = {"hidden_size": 512, "intermediate_size": 2048}
    assert total(FULL, **wide) > total(LORA, **wide) > total(QLORA, **wide)


@pytest.mark.parametrize(("micro_batch", "tokens"), [(0, 8), (2, 0), (-1, 8)])
def test_a_batch_without_a_token_is_refused(micro_batch: int, tokens: int) -> None:
    with pytest.raises(UsageError, match=f"a batch of {micro_batch} rows of {tokens} tokens"):
        told("llama", micro_batch=micro_batch, tokens=tokens)


@pytest.mark.parametrize(
    ("total", "card"),
    [
        (1, "8 GB"), (7_200_000_000, "8 GB"), (7_200_000_001, "12 GB"), (21_600_000_000, "24 GB"),
        (72_000_000_001, "141 GB"), (126_900_000_000, "141 GB"), (126_900_000_001, "more than 141 GB"),
    ],
)  # fmt: skip
def test_the_smallest_card_keeps_a_tenth_free(total: int, card: str) -> None:
    assert smallest_gpu(Estimate(total - 1, 0, 1, 0, 0)) == card


def test_counts_of_a_shape_add_up() -> None:
    shape = shape_of(config("gpt2"))
    assert isinstance(shape, Shape)
    assert shape.parameters == shape.ends + shape.matrices + shape.rest
    assert shape.rest == 64 * 32 + 2 * (4 * 32 + 96 + 32 + 128 + 32) + 2 * 32  # positions, norms and biases
