"""A published CODI checkpoint, imported, thinks and answers as the module that wrote it; what does not fit is named.

The checkpoints here are written by a tiny module built as the published one is: peft around a causal LM that has three
more tokens, and an `nn.Sequential` beside it. Its file therefore has the published names.
"""

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from stillroom.errors import DataError, UsageError
from stillroom.students import load
from stillroom.students.adapters import AdapterConfig, known_warnings
from stillroom.students.importing import WEIGHTS
from stillroom.students.prompts import prompt_ids
from stillroom.students.published import (
    ARCHITECTURES,
    SAFE,
    Architecture,
    _skeleton,
    import_codi,
)
from stillroom.students.thoughts import Answer, Thinker, think_and_answer
from toy_tokenizers import gpt2_like, llama3_like

TOKENIZERS = {"gpt2": gpt2_like, "llama": llama3_like}
LORA = AdapterConfig(name="lora", r=4, alpha=8, dropout=0.1)
ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
TINY = {
    "gpt2": Architecture(
        "gpt2",
        {"vocab_size": 257, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96, "initializer_range": 0.3},
        LORA,
    ),
    "llama": Architecture(
        "llama",
        {
            "vocab_size": 263, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 96,
            "initializer_range": 0.3, "tie_word_embeddings": True, "rope_parameters": ROPE,
        },
        LORA,
    ),
}  # fmt: skip
TARGETS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj"],
}
QUESTIONS = ["Ann has 3 eggs.", "How many?", "2 and 3 and 4 make"]
NAMES = tuple(TINY)


class Published(nn.Module):
    """The module whose state a published file is."""

    def __init__(self, name: str, shape: Architecture) -> None:
        super().__init__()
        torch.manual_seed(0)
        numbers = {**shape.numbers, "vocab_size": shape.numbers["vocab_size"] + 3}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape.kind, **numbers))
        lora = LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=0.1, target_modules=TARGETS[name],
            fan_in_fan_out=name == "gpt2",
        )  # fmt: skip
        with known_warnings():
            self.codi = get_peft_model(model, lora)
        width = model.config.hidden_size
        self.prj = nn.Sequential(nn.Dropout(0.0), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.prj.add_module("ln", nn.LayerNorm(width))
        for key, tensor in self.state_dict().items():
            if "lora_B" in key or key.startswith("prj"):
                tensor.copy_(0.3 * torch.randn(tensor.shape))
        self.eval()


def published(name: str, **numbers: Any) -> Published:
    return Published(name, dataclasses.replace(TINY[name], numbers={**TINY[name].numbers, **numbers}))


def checkpoint(folder: Path, name: str, form: str = WEIGHTS, tensors: dict[str, Tensor] | None = None) -> Path:
    """A published folder: one file of weights, and the base model's tokenizer."""
    folder.mkdir(exist_ok=True)
    tensors = dict(published(name).state_dict()) if tensors is None else tensors
    if form == WEIGHTS:
        torch.save(tensors, folder / WEIGHTS)
    else:  # which holds a tied tensor once
        save_file(dict({tensor.data_ptr(): (key, tensor) for key, tensor in tensors.items()}.values()), folder / SAFE)
    TOKENIZERS[name]().save_pretrained(folder)
    return folder


def imported(source: Path, name: str, merge: bool = True, tokenizer: Path | None = None) -> Path:
    target = source.with_name("student")
    import_codi(source, target, name, tokenizer, merge, TINY)
    return target


def refused(source: Path, name: str, told: str, tokenizer: Path | None = None) -> None:
    """Importing raises an error that says `told`, and leaves nothing behind."""
    before = sorted(source.parent.iterdir())
    for merge in (True, False):
        with pytest.raises(DataError, match=told):
            imported(source, name, merge, tokenizer)
        assert sorted(source.parent.iterdir()) == before


def asked(thinker: Thinker, name: str) -> list[Answer]:
    words = TOKENIZERS[name]()
    return think_and_answer(thinker, [words(question)["input_ids"] for question in QUESTIONS], 6, 12)


def logits(model: Any) -> Tensor:
    """Of a text that holds all three added tokens."""
    rows = model.get_input_embeddings().weight.shape[0]
    return model(torch.tensor([[5, 9, rows - 3, rows - 2, rows - 1, *range(40, 80)]])).logits.detach()


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("form", [WEIGHTS, SAFE])
@pytest.mark.parametrize("name", NAMES)
def test_the_student_thinks_and_answers_as_the_module_that_wrote_the_file(
    name: str, form: str, merge: bool, tmp_path: Path
) -> None:
    module = published(name)
    folder = imported(checkpoint(tmp_path / "source", name, form), name, merge)
    student = load(folder)
    torch.testing.assert_close(logits(student.model), logits(module.codi), atol=1e-5, rtol=0)
    size, end = int(TINY[name].numbers["vocab_size"]), TOKENIZERS[name]().eos_token_id
    theirs = Thinker(module.codi.get_base_model(), module.prj, (size + 1,), (size + 2,), size, (end,))
    mine, expected = student.plain().thinker(), asked(theirs, name)
    found = asked(mine, name)
    assert (mine.begin, mine.end_of_thoughts, mine.pad, mine.stops) == ((size + 1,), (size + 2,), size, (end,))
    assert student.manner.thoughts is not None
    assert student.manner.thoughts.count == 6
    for answer, right in zip(found, expected, strict=True):
        assert answer.completion == right.completion
        torch.testing.assert_close(answer.thoughts_Kd, right.thoughts_Kd, atol=1e-5, rtol=0)
    assert len({tuple(answer.completion.ids) for answer in found}) == len(QUESTIONS)  # else nothing was compared
    assert (folder / "adapter_config.json").exists() == (folder / "base").exists() == (not merge)
    assert {file.suffix for file in folder.rglob("*") if file.is_file()} <= {".json", ".safetensors", ".jinja"}


@pytest.mark.parametrize("name", NAMES)
def test_merged_gives_the_logits_of_kept_corrections(name: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", name)
    merged = load(imported(source, name, True)).model
    (tmp_path / "student").rename(tmp_path / "merged")
    kept: Any = load(imported(source, name, False)).model
    torch.testing.assert_close(logits(merged), logits(kept), atol=1e-5, rtol=0)
    with kept.disable_adapter():
        assert (logits(merged) - logits(kept)).abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_question_is_asked_as_it_was_taught_and_the_tokens_stand_where_they_stood(
    name: str, tmp_path: Path
) -> None:
    """Pitfall 16: the published question has no line end. Rows V to V + 2 are random: only the file has them."""
    size = int(TINY[name].numbers["vocab_size"])
    student = load(imported(checkpoint(tmp_path / "source", name), name))
    assert (
        prompt_ids("How many?", student.manner.style, student.tokenizer) == TOKENIZERS[name]()("How many?")["input_ids"]
    )
    words = student.tokenizer
    assert words.convert_tokens_to_ids(["[PAD]", "<bot>", "<eot>"]) == [size, size + 1, size + 2]
    assert words("<bot><eot>", add_special_tokens=False)["input_ids"] == [size + 1, size + 2]
    assert words.pad_token_id == student.model.config.pad_token_id == size
    assert student.stops == (TOKENIZERS[name]().eos_token_id,)
    assert student.model.config.eos_token_id == words.eos_token_id
    mine, theirs = (m.get_input_embeddings().weight for m in (student.model, published(name).codi.get_base_model()))
    assert torch.equal(mine, theirs)
    assert student.model.get_output_embeddings().weight is mine


def test_rope_scaling_stands_in_the_config_and_changes_answers(tmp_path: Path) -> None:
    """Pitfall 12: a config without Llama 3's rope scaling is another model."""
    student = load(imported(checkpoint(tmp_path / "source", "llama"), "llama"))
    assert student.model.config.rope_parameters == ROPE
    unscaled = published("llama", rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    assert (logits(student.model) - logits(unscaled.codi)).abs().max() > 0.01


def test_the_names_in_the_file_are_the_published_ones() -> None:
    """Read off the published modules; if peft ever names its parts otherwise, this tells it."""
    inner = "codi.base_model.model.transformer.h.0.attn.c_attn"
    assert {
        "codi.base_model.model.transformer.wte.weight", "codi.base_model.model.lm_head.weight",
        f"{inner}.base_layer.weight", f"{inner}.base_layer.bias", f"{inner}.lora_A.default.weight",
        f"{inner}.lora_B.default.weight", "codi.base_model.model.transformer.ln_f.bias",
        "prj.1.weight", "prj.1.bias", "prj.3.weight", "prj.3.bias", "prj.ln.weight", "prj.ln.bias",
    } <= set(published("gpt2").state_dict())  # fmt: skip
    layer = "codi.base_model.model.model.layers.1"
    assert {
        "codi.base_model.model.model.embed_tokens.weight", f"{layer}.mlp.gate_proj.lora_B.default.weight",
        f"{layer}.self_attn.q_proj.base_layer.weight", f"{layer}.input_layernorm.weight",
    } <= set(published("llama").state_dict())  # fmt: skip


@pytest.mark.parametrize(
    ("name", "base", "trained"),
    [("gpt2", 124_439_808, 18_874_368 + 1_182_720), ("llama3.2-1b", 1_235_814_400, 90_177_536 + 8_396_800)],
)
def test_the_published_numbers_give_the_published_sizes(name: str, base: int, trained: int) -> None:
    """GPT-2's 20,057,088 trained numbers are CODI's own count; Llama's are 16 layers of 128 * 44,032 by hand."""
    words = gpt2_like()
    wrapped, projection = _skeleton(ARCHITECTURES[name], words)
    counts = {key: tensor.numel() for key, tensor in wrapped.state_dict().items() if "lm_head" not in key}
    lora = sum(count for key, count in counts.items() if "lora" in key)
    model: Any = wrapped.get_base_model()
    assert sum(counts.values()) - lora - 3 * model.config.hidden_size == base
    assert lora + sum(p.numel() for p in projection.parameters()) == trained
    assert model.config.tie_word_embeddings
    assert (ARCHITECTURES[name].adapter.r, ARCHITECTURES[name].adapter.alpha, ARCHITECTURES[name].thoughts) == (
        128,
        32,
        6,
    )
    if name != "gpt2":  # the slowest rotation, 500000^(-62/64), is 32 times slower still; the fastest is as it was
        slowness = model.model.rotary_emb.inv_freq[[0, -1]] * torch.tensor([1.0, 32 * 500000 ** (62 / 64)])
        assert slowness.tolist() == pytest.approx([1.0, 1.0])


def test_weights_keep_their_dtype_apart_and_are_wide_merged(tmp_path: Path) -> None:
    """As published: the model in bfloat16, corrections and projection in float32."""
    tensors = {
        key: tensor if "lora" in key or key.startswith("prj") else tensor.bfloat16()
        for key, tensor in published("llama").state_dict().items()
    }
    source = checkpoint(tmp_path / "source", "llama", tensors=tensors)
    kept = imported(source, "llama", False)
    assert {t.dtype for t in load_file(kept / "base" / SAFE).values()} == {torch.bfloat16}
    assert {t.dtype for t in load_file(kept / "adapter_model.safetensors").values()} == {torch.float32}
    apart = logits(load(kept).model)
    kept.rename(tmp_path / "kept")
    merged = imported(source, "llama", True)
    assert {t.dtype for t in load_file(merged / SAFE).values()} == {torch.float32}
    torch.testing.assert_close(logits(load(merged).model), apart, atol=1e-5, rtol=0)


@pytest.mark.parametrize("gone", ["lm_head", "wte"])
@pytest.mark.parametrize("form", [WEIGHTS, SAFE])
def test_a_tied_tensor_may_stand_under_either_name(gone: str, form: str, tmp_path: Path) -> None:
    module = published("gpt2")
    tensors = without(dict(module.state_dict()), gone)
    student = load(imported(checkpoint(tmp_path / "source", "gpt2", form, tensors), "gpt2"))
    torch.testing.assert_close(logits(student.model), logits(module.codi), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_that_has_the_published_padding_is_the_same(name: str, tmp_path: Path) -> None:
    words = TOKENIZERS[name]()
    words.add_special_tokens({"pad_token": "[PAD]"})
    words.save_pretrained(tmp_path / "words")
    source = checkpoint(tmp_path / "source", name)
    named = load(imported(source, name, tokenizer=tmp_path / "words")).tokenizer
    (tmp_path / "student").rename(tmp_path / "first")
    assert named.get_vocab() == load(imported(source, name)).tokenizer.get_vocab()


def without(tensors: dict[str, Tensor], *parts: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if not any(part in key for part in parts)}


HEAD = "codi.base_model.model.lm_head.weight"
LAYER = r"codi\.base_model\.model\.model\.layers\.0"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda t: without(t, "0.self_attn.q_proj.lora_A"),
            rf"lack what .* llama needs: {LAYER}\.self_attn\.q_proj\.lora_A",
        ),
        (lambda t: without(t, "lora"), r"lora_A\.default\.weight, .* and 25 more"),
        (lambda t: without(t, "embed_tokens", "lm_head"), r"embed_tokens\.weight, .*lm_head\.weight"),
        (lambda t: without(t, ""), "lack what CODI of llama needs"),
        (
            lambda t: {key.replace("prj.ln", "prj.4"): t[key] for key in t},
            r"prj\.ln\.weight, prj\.ln\.bias; .*know: prj\.4",
        ),
        (lambda t: {**t, "decoder.lm_head.weight": torch.ones(2)}, r"llama does not know: decoder\.lm_head\.weight"),
        (lambda t: {**t, "prj.1.weight": torch.ones(24, 16)}, r"prj\.1\.weight is \(24, 16\) .*, expected \(16, 16\)"),
        (
            lambda t: {**t, "prj.1.bias": torch.ones(16).int()},
            r"prj\.1\.bias is \(16,\) of int32, expected \(16,\) of float",
        ),
        (lambda t: {**t, HEAD: torch.zeros(266, 16)}, "lm_head.weight that differ, where the model ties them"),
    ],
)
@pytest.mark.parametrize("form", [WEIGHTS, SAFE])
def test_tensors_that_do_not_fit_are_named(form: str, change: Any, told: str, tmp_path: Path) -> None:
    tensors = change(dict(published("llama").state_dict()))
    refused(checkpoint(tmp_path / "source", "llama", form, tensors), "llama", told)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "llama")
    with pytest.raises(UsageError, match="unknown architecture 'llama3': did you mean 'llama'"):
        import_codi(source, tmp_path / "student", "llama3", None, True, TINY)
    with pytest.raises(UsageError, match=r"known are gpt2, llama3\.2-1b"):
        import_codi(source, tmp_path / "student", "gpt-2-large", None, True)
    gpt2_like().save_pretrained(tmp_path / "words")
    refused(
        source, "gpt2", "lack what CODI of gpt2 needs.*does not know: codi.base_model.model.model", tmp_path / "words"
    )


class Payload:
    """What a hostile pickle holds: unpickling it in earnest creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_nothing_runs(zipped: bool, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "gpt2")
    hostile = {**published("gpt2").state_dict(), "prj.1.weight": Payload(tmp_path / "run")}
    torch.save(hostile, source / WEIGHTS, _use_new_zipfile_serialization=zipped)
    refused(source, "gpt2", rf"{WEIGHTS}: a pickle that calls (posix|nt)\.mkdir; it was not run")
    (source / WEIGHTS).write_bytes(pickle.dumps({"a": Payload(tmp_path / "run")}))
    refused(source, "gpt2", WEIGHTS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("form", [WEIGHTS, SAFE])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(kept: float, form: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "gpt2", form)
    whole = (source / form).read_bytes()
    (source / form).write_bytes(whole[: int(kept * len(whole))])
    refused(source, "gpt2", f"{form}: truncated, or no")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "gpt2")
    (source / WEIGHTS).unlink()
    refused(source, "gpt2", "neither model.safetensors nor pytorch_model.bin")


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "gpt2")
    llama3_like().save_pretrained(tmp_path / "words")
    refused(source, "gpt2", "words: the tokenizer has 263 tokens, gpt2 has 257 and may have", tmp_path / "words")
    words = gpt2_like()
    words.add_tokens(["egg"])
    words.save_pretrained(source)
    refused(source, "gpt2", "has 258 tokens, gpt2 has 257 and may have one more for padding")


def test_a_tokenizer_to_which_an_added_token_means_something_else_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "gpt2")
    words = gpt2_like()
    told = words.backend_tokenizer.to_str().replace("<|endoftext|>", "<bot>")
    inner = type(words.backend_tokenizer).from_str(told)
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<bot>").save_pretrained(source)
    refused(source, "gpt2", r"\[PAD\], <bot>, <eot> became \[257, 256, 258\]")


def test_a_tokenizer_that_is_none_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "gpt2")
    refused(source, "gpt2", "nowhere: no such folder; fetch it first", tmp_path / "nowhere")
    (source / "tokenizer.json").write_text("{")
    refused(source, "gpt2", "source: its tokenizer cannot be opened")
    (source / "tokenizer.json").unlink()
    refused(source, "gpt2", r"source: its tokenizer cannot be opened: .*; name the folder of .* \(--tokenizer FOLDER\)")
    refused(tmp_path / "missing", "gpt2", "missing: no such folder", source)


def test_a_tokenizer_that_brings_code_is_refused_and_it_is_not_run(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "gpt2")
    (source / "tokenizer.json").unlink()
    (source / "words.py").write_text(f"import os; os.mkdir({str(tmp_path / 'run')!r})")
    (source / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["words.Mine", None]}}))
    refused(source, "gpt2", "tokenizer")
    assert not (tmp_path / "run").exists()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = checkpoint(tmp_path / "source", "gpt2")

    def fails(*_: object) -> None:
        raise DataError("the disk is full")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", fails)  # after the weights
    refused(source, "gpt2", "the disk is full")


def test_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    refused(checkpoint(tmp_path / "source", "gpt2"), "gpt2", "student exists; remove it")
    assert list((tmp_path / "student").iterdir()) == []
