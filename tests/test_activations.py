"""The microscope: what it reads is what the model computes with, and it leaves no hook behind."""

from collections import OrderedDict

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
)  # fmt: skip

from stillroom.activations import added, blocks, final_norm, residual_stream, steered, unembed
from stillroom.errors import DataError, UsageError
from toys import MODELS

SMALL = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.5, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10], [11, 12, 13, 14]])


def hooks(model: PreTrainedModel) -> int:
    return sum(len(getattr(m, name)) for m in model.modules() for name in ("_forward_hooks", "_forward_pre_hooks"))


@pytest.mark.parametrize("kind", MODELS)
def test_the_last_layer_through_the_unembedding_is_the_model_s_own_output(kind: str) -> None:
    model = MODELS[kind]()
    with torch.inference_mode(), residual_stream(model) as stream:
        logits = model(input_ids=IDS).logits
    torch.testing.assert_close(unembed(model, stream[-1]), logits, rtol=0, atol=1e-6)
    assert not torch.allclose(unembed(model, stream[-2]), logits, atol=1e-2)


@pytest.mark.parametrize(
    "made",
    [
        CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.5)),
        GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=8.0)),
        Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.2)),
    ],
    ids=lambda made: type(made).__name__,
)
@torch.inference_mode()
def test_a_family_that_rescales_its_logits_has_them_so_when_they_are_read(made: PreTrainedModel) -> None:
    made.eval()
    with residual_stream(made) as stream:
        told = made(input_ids=IDS).logits
    torch.testing.assert_close(unembed(made, stream[-1]), told, rtol=0, atol=1e-5)
    head = made.get_output_embeddings()
    assert not torch.allclose(head(final_norm(made)(stream[-1])), told, atol=1e-3)


@pytest.mark.parametrize("kind", MODELS)
def test_the_stream_is_what_transformers_tells(kind: str) -> None:
    model = MODELS[kind]()
    with torch.inference_mode(), residual_stream(model) as stream:
        told = model(input_ids=IDS, output_hidden_states=True).hidden_states
    assert [tuple(layer.shape) for layer in stream] == [(3, 4, 16)] * 3
    for mine, theirs in zip(stream[:-1], told[:-1], strict=True):  # theirs ends behind the final norm
        assert torch.equal(mine, theirs)
    with torch.inference_mode():
        torch.testing.assert_close(final_norm(model)(stream[-1]), told[-1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_looking_changes_nothing_and_leaves_no_hook(kind: str) -> None:
    model = MODELS[kind]()
    before, logits = hooks(model), model(input_ids=IDS).logits
    with residual_stream(model) as stream:
        assert hooks(model) == before + 3
        assert torch.equal(model(input_ids=IDS).logits, logits)
    assert hooks(model) == before
    seen = stream[-1].clone()
    model(input_ids=IDS[:, :2])
    assert torch.equal(stream[-1], seen)
    assert not any(layer.requires_grad for layer in stream)


@pytest.mark.parametrize("kind", MODELS)
def test_hooks_go_after_an_error_too(kind: str) -> None:
    model = MODELS[kind]()
    before = hooks(model)
    with pytest.raises(IndexError), residual_stream(model):
        model(input_ids=torch.tensor([[999]]))
    with pytest.raises(KeyError), residual_stream(model):
        raise KeyError
    assert hooks(model) == before


def test_each_pass_begins_anew() -> None:
    model = MODELS["llama"]()
    with residual_stream(model) as stream:
        model(input_ids=IDS)
        model(input_ids=IDS[:1])
    assert [tuple(layer.shape) for layer in stream] == [(1, 4, 16)] * 3


def test_a_model_whose_layers_cannot_be_told_is_refused() -> None:
    model = MODELS["llama"]()
    model.base_model.twin = torch.nn.ModuleList(torch.nn.Identity() for _ in range(2))
    with pytest.raises(DataError, match="has 2 lists of 2 blocks"):
        blocks(model)
    plain = MODELS["gpt2"]()
    plain.base_model._modules = OrderedDict((k, v) for k, v in plain.base_model._modules.items() if k != "ln_f")
    with pytest.raises(DataError, match="no final norm"):
        final_norm(plain)


@pytest.mark.parametrize("kind", MODELS)
def test_steering_moves_one_layer_by_its_direction(kind: str) -> None:
    model = MODELS[kind]()
    before, direction = hooks(model), torch.arange(16.0)
    with torch.inference_mode(), residual_stream(model) as stream:
        model(input_ids=IDS)
        plain = list(stream)
        with steered(model, 1, direction):
            model(input_ids=IDS)
        torch.testing.assert_close(stream[0], plain[0])
        with steered(model, 2, 0 * direction):
            logits = model(input_ids=IDS).logits
        assert torch.equal(logits, model(input_ids=IDS).logits)
    with torch.inference_mode(), steered(model, 2, direction), residual_stream(model) as stream:
        model(input_ids=IDS)
    torch.testing.assert_close(stream[2], plain[2] + direction, rtol=0, atol=1e-4)
    for layer in (-1, 3):
        with pytest.raises(UsageError, match="layers 0 to 2"), steered(model, layer, direction):
            pass
    with pytest.raises(KeyError), steered(model, 1, direction):
        raise KeyError
    assert hooks(model) == before


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_added_has_the_norm_of_what_stands_there(kind: str) -> None:
    """h' = h + c |h| v / |v| at the given places, h everywhere else, and nothing in a pass that does not reach them."""
    model = MODELS[kind]()
    before = hooks(model)
    places = torch.tensor([[1, 2], [0, 3], [2, 3]])
    vectors = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        with residual_stream(model) as stream:
            model(input_ids=IDS)
        plain = [layer.clone() for layer in stream]
        with added(model, 1, places, vectors, 0.5), residual_stream(model) as stream:
            model(input_ids=IDS)
            changed = [layer.clone() for layer in stream]
            model(input_ids=IDS[:, :1])
            short = stream[1].clone()
    rows = torch.arange(3)[:, None]
    here = plain[1][rows, places]
    wanted = here + 0.5 * here.norm(dim=-1, keepdim=True) * vectors / vectors.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(changed[1][rows, places], wanted)
    untouched = torch.ones(3, 4, dtype=torch.bool)
    untouched[rows, places] = False
    assert torch.equal(changed[1][untouched], plain[1][untouched])
    assert not torch.allclose(changed[2], plain[2], atol=1e-3)
    torch.testing.assert_close(short, plain[1][:, :1])
    assert hooks(model) == before


def test_vectors_are_added_where_a_later_block_reads_them() -> None:
    model, places, vectors = MODELS["llama"](), torch.tensor([[1]]), torch.ones(1, 1, 16)
    for layer in (0, 2):
        with pytest.raises(DataError, match="after 1 to 1 blocks"), added(model, layer, places, vectors, 1.0):
            pass
