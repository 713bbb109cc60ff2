"""An adapter starts as nothing, trains alone, comes back from disk, and merges into a model that says the same."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from architectures import NAMES, TIED, tiny, tokens
from stillroom.errors import ConfigError, DataError, UsageError
from stillroom.quantised import four_bits
from stillroom.students.adapters import AdapterConfig, attach, merged, save_adapter, targets, with_adapter

LORA, QLORA = AdapterConfig(name="lora"), AdapterConfig(name="qlora")
FOUR_BIT = ("llama", "bloom", "gpt2")
IDS_BT = tokens()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(IDS_BT).logits


def train(model: nn.Module, steps: int = 5) -> list[float]:
    """A few steps of AdamW on whatever asks for a gradient; the losses."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS_BT, labels=IDS_BT).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny models on disk, since weights are quantised as they are read."""
    root = tmp_path_factory.mktemp("bases")
    for name in FOUR_BIT:
        wide(name).save_pretrained(root / name)
    return {name: root / name for name in FOUR_BIT}


def wide(name: str) -> PreTrainedModel:
    """Of a width that divides into blocks of 64, as weights in 4 bits on a CPU must."""
    widths = {"llama": {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}, "gpt2": {"n_embd": 64}}
    return tiny(name, **widths.get(name, {"hidden_size": 64}))


def four_bit(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=four_bits("cpu"), dtype=torch.float32, attn_implementation="eager"
    )
    return model


LLAMA = [f"model.layers.{i}.{part}" for i in (0, 1) for part in (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)]  # fmt: skip
BLOOM = [f"transformer.h.{i}.{part}" for i in (0, 1) for part in (
    "self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h",
)]  # fmt: skip
GPT2 = [f"transformer.h.{i}.{part}" for i in (0, 1) for part in (
    "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj",
)]  # fmt: skip
LINEAR = {"llama": LLAMA, "qwen2": LLAMA, "gemma": LLAMA, "bloom": BLOOM, "gpt2": GPT2}


@pytest.mark.parametrize("name", NAMES)
def test_the_linear_layers_of_the_blocks_are_found_and_the_head_is_not(name: str) -> None:
    assert targets(tiny(name)) == LINEAR[name]


@pytest.mark.parametrize("name", FOUR_BIT)
def test_they_are_found_in_4_bits_as_well(name: str, folders: dict[str, Path]) -> None:
    assert targets(four_bit(folders[name])) == LINEAR[name]


def test_a_layer_that_shares_the_embeddings_weight_is_no_target() -> None:
    model = tiny("llama")
    model.model.layers[0].mlp.reader = nn.Linear(32, 64, bias=False)
    assert "model.layers.0.mlp.reader" in targets(model)
    model.model.layers[0].mlp.reader.weight = model.get_input_embeddings().weight
    assert targets(model) == LLAMA


def test_a_layer_outside_the_blocks_is_no_target() -> None:
    model = tiny("llama")
    model.model.project_in = nn.Linear(32, 32)
    assert targets(model) == LLAMA


def test_a_model_without_linear_layers_in_blocks_is_refused() -> None:
    model = tiny("llama")
    model.model.layers = nn.ModuleList()
    with pytest.raises(UsageError, match="LlamaForCausalLM has no linear layer inside its blocks"):
        targets(model)


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_adapter_changes_no_logit(name: str, grown: bool) -> None:
    assert torch.equal(logits(attach(tiny(name), LORA, grown)), logits(tiny(name)))


@pytest.mark.parametrize("name", NAMES)
def test_the_adapter_alone_is_trained_and_with_grown_vocabularies_both_ends(name: str) -> None:
    expected = {f"base_model.model.{layer}.lora_{m}.default.weight" for layer in LINEAR[name] for m in "AB"}
    assert trained(attach(tiny(name), LORA, grown=False)) == expected
    grown = attach(tiny(name), LORA, grown=True)
    ends = [grown.get_input_embeddings().weight, grown.get_output_embeddings().weight]
    assert all(end.requires_grad for end in ends)
    assert len(trained(grown)) == len(expected) + (1 if name in TIED else 2)


def test_rank_and_scale_are_those_of_the_config() -> None:
    wrapped = attach(tiny("llama"), AdapterConfig(name="lora", r=3, alpha=12, dropout=0.25), grown=False)
    layer = wrapped.get_submodule("base_model.model.model.layers.0.mlp.down_proj")
    assert layer.lora_A["default"].weight.shape == (3, 64)
    assert layer.lora_B["default"].weight.shape == (32, 3)
    assert layer.scaling["default"] == 4
    assert layer.lora_dropout["default"].p == 0.25


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_what_was_trained_merges_and_comes_back(name: str, grown: bool, tmp_path: Path) -> None:
    model = attach(tiny(name), LORA, grown)
    losses = train(model)
    assert losses[-1] < losses[0]
    learned = logits(model)
    assert (learned - logits(tiny(name))).abs().max() > 0.1
    save_adapter(model, tmp_path)
    assert torch.equal(logits(with_adapter(tiny(name), tmp_path)), learned)
    plain = merged(model)
    assert type(plain) is type(wide(name))
    assert set(plain.state_dict()) == set(tiny(name).state_dict())
    assert (logits(plain) - learned).abs().max() < 1e-5
    assert (plain.get_output_embeddings().weight is plain.get_input_embeddings().weight) == (name in TIED)


def test_a_saved_adapter_holds_corrections_alone_and_names_no_place(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    save_adapter(attach(base, LORA, grown=False), tmp_path / "adapter")
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    settings = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert str(tmp_path) not in settings
    assert json.loads(settings)["target_modules"] == sorted(json.loads(settings)["target_modules"])


def test_full_is_the_model_itself() -> None:
    model = tiny("llama")
    assert attach(model, AdapterConfig(), grown=True) is model
    assert merged(model) is model
    assert len(trained(model)) == len(list(model.parameters()))


@pytest.mark.parametrize("name", FOUR_BIT)
def test_a_4_bit_model_learns_through_its_adapter(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    model = attach(four_bit(folders[name]), QLORA, grown=True)
    held = [p for p in model.parameters() if not p.requires_grad and p.dtype == torch.uint8]
    before = [p.clone() for p in held]
    losses = train(model)
    assert losses[-1] < losses[0]
    assert len(held) == len(LINEAR[name])
    assert all(torch.equal(p, q) for p, q in zip(held, before, strict=True))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    learned = logits(model)
    save_adapter(model, tmp_path)
    assert torch.equal(logits(with_adapter(four_bit(folders[name]), tmp_path)), learned)


@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("name", FOUR_BIT)
def test_a_4_bit_model_merges_into_the_values_that_it_holds(name: str, grown: bool, folders: dict[str, Path]) -> None:
    from bitsandbytes.nn import Linear4bit

    model = attach(four_bit(folders[name]), QLORA, grown)
    train(model)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = torch.float32  # bfloat16 products would hide a fault of a hundredth
    learned = logits(model)
    plain = merged(model)
    assert type(plain) is type(wide(name))
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    assert {(k, v.shape) for k, v in plain.state_dict().items()} == {
        (k, v.shape) for k, v in wide(name).state_dict().items()
    }
    assert (logits(plain) - learned).abs().max() < 1e-5
    assert (plain.get_output_embeddings().weight is plain.get_input_embeddings().weight) == (name in TIED)


def test_beside_4_bits_norms_are_in_float32_and_inputs_want_gradients(folders: dict[str, Path]) -> None:
    base = four_bit(folders["llama"]).bfloat16()
    model = attach(base, QLORA, grown=False)
    assert {p.dtype for n, p in model.named_parameters() if "norm" in n} == {torch.float32}
    assert model.get_input_embeddings()(IDS_BT).requires_grad  # from which a checkpointed first block begins


@pytest.mark.parametrize(
    ("config", "reentrant"), [(LORA, False), (QLORA, False), (QLORA, True)], ids=["lora", "qlora", "qlora, reentrant"]
)
def test_checkpointing_changes_no_gradient(config: AdapterConfig, reentrant: bool, folders: dict[str, Path]) -> None:
    base = four_bit(folders["llama"]) if config.name == "qlora" else tiny("llama")
    model = attach(base, config.model_copy(update={"dropout": 0.0}), grown=False)
    train(model, 2)
    gradients = []
    for _ in range(2):
        model(input_ids=IDS_BT, labels=IDS_BT, use_cache=False).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})
        model.zero_grad()
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert all(gradient.abs().max() > 0 for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_base_that_is_not_in_4_bits_is_refused() -> None:
    with pytest.raises(UsageError, match="the model is not in 4 bits; load it with quantization_config"):
        attach(tiny("llama"), QLORA, grown=False)


def test_a_4_bit_base_whose_weights_were_packed_anew_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    save_adapter(attach(four_bit(folders["llama"]), QLORA, grown=False), tmp_path)
    base = four_bit(folders["llama"])
    base.model.layers[1].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(UsageError, match=r"layers\.1\.mlp\.up_proj: this 4-bit model was asked before"):
        attach(base, QLORA, grown=False)
    with pytest.raises(UsageError, match="load it once more"):
        with_adapter(base, tmp_path)


def test_no_layer_of_an_attached_4_bit_model_packs_itself_anew(folders: dict[str, Path]) -> None:
    from bitsandbytes.nn import Linear4bit

    model = attach(four_bit(folders["llama"]), QLORA, grown=False)
    found = [m.support_avx512bf16_for_cpu for m in model.modules() if isinstance(m, Linear4bit)]
    assert found == [False] * 14


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no adapter_config\.json"):
        with_adapter(tiny("llama"), tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "dora"}, "name: Input should be 'full', 'lora' or 'qlora'"),
        ({"r": 0}, "r: Input should be greater than or equal to 1"),
        ({"alpha": 0}, "alpha: Input should be greater than or equal to 1"),
        ({"dropout": 1.0}, "dropout: Input should be less than 1"),
        ({"rank": 8}, "unknown key 'rank'"),
    ],
)
def test_settings_are_checked(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        AdapterConfig.parse(given, "recipe.yaml")
