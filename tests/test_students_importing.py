"""What is imported says what it said before; code in a folder is never run; what does not fit is named."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from architectures import NAMES, TIED, tiny, tokens
from stillroom.errors import DataError
from stillroom.students.importing import INDEX, WEIGHTS, import_folder
from toys import tokenizer

IDS_BT = tokens()


def state(name: str) -> dict[str, Tensor]:
    """A model's tensors as they stand in a `.bin` file: a tied head is left out."""
    tensors = dict(tiny(name).state_dict())
    if name in TIED:
        del tensors["lm_head.weight"]
    return tensors


def pickled(folder: Path, name: str = "llama", tensors: dict[str, Tensor] | None = None, **config: Any) -> Path:
    """A folder of one pickled file, with a tokenizer and what else lies about in such folders."""
    folder.mkdir(exist_ok=True)
    model = tiny(name)
    model.config.save_pretrained(folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, **config}))
    tokenizer().save_pretrained(folder)
    torch.save(state(name) if tensors is None else tensors, folder / WEIGHTS)
    return folder


def sharded(folder: Path, name: str = "llama") -> Path:
    pickled(folder, name).joinpath(WEIGHTS).unlink()
    tensors = state(name)
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": list(tensors)[i::2] for i in (0, 1)}
    for shard, names in shards.items():
        torch.save({key: tensors[key] for key in names}, folder / shard)
    index = {"metadata": {}, "weight_map": {key: shard for shard, names in shards.items() for key in names}}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def reindexed(folder: Path, **changes: object) -> Path:
    """A sharded folder whose index says something else of some tensors; None leaves one out."""
    index = json.loads((sharded(folder) / INDEX).read_text())
    index["weight_map"].update(changes)
    index["weight_map"] = {key: shard for key, shard in index["weight_map"].items() if shard is not None}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def refused(source: Path, told: str) -> None:
    """Importing raises an error that says `told`, and leaves nothing behind."""
    target = source.with_name("imported")
    with pytest.raises(DataError, match=told):
        import_folder(source, target)
    assert [path for path in source.parent.iterdir() if path != source and path.suffix != ".txt"] == []


@pytest.mark.parametrize("shape", [pickled, sharded])
@pytest.mark.parametrize("name", NAMES)
def test_an_imported_model_gives_the_same_logits(name: str, shape: Any, tmp_path: Path) -> None:
    source = shape(tmp_path / "source", name)
    import_folder(source, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager", use_safetensors=True)
    assert torch.equal(model(IDS_BT).logits, tiny(name)(IDS_BT).logits)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == (name in TIED)
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (source, tmp_path / "out"))
    assert after("Ann has 3 eggs")["input_ids"] == before("Ann has 3 eggs")["input_ids"]


@pytest.mark.parametrize("name", ["bloom", "gpt2"])
def test_names_without_the_models_prefix_and_left_over_constants_are_understood(name: str, tmp_path: Path) -> None:
    tensors = {key.removeprefix("transformer."): tensor for key, tensor in state(name).items()}
    if name == "gpt2":
        tensors |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64).bool(), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    import_folder(pickled(tmp_path / "source", name, tensors), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert torch.equal(model(IDS_BT).logits, tiny(name)(IDS_BT).logits)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_tied_head_that_stands_in_the_file_as_well_is_no_trouble(name: str, tmp_path: Path) -> None:
    import_folder(pickled(tmp_path / "source", name, tiny(name).state_dict()), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert torch.equal(model(IDS_BT).logits, tiny(name)(IDS_BT).logits)


def test_a_head_that_its_config_ties_and_its_weights_do_not_stays_as_it_is(tmp_path: Path) -> None:
    model = tiny("gpt2", tie_word_embeddings=False)
    assert model.lm_head.weight is not model.transformer.wte.weight
    import_folder(pickled(tmp_path / "source", "gpt2", model.state_dict()), tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert torch.equal(again(IDS_BT).logits, model(IDS_BT).logits)
    assert not again.config.tie_word_embeddings


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_keep_their_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {key: tensor.to(dtype) for key, tensor in state("llama").items()}
    import_folder(pickled(tmp_path / "source", tensors=tensors, dtype="float32"), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in model.state_dict().items())
    assert model.dtype == dtype


def test_only_what_cannot_hold_code_is_copied(tmp_path: Path) -> None:
    source = sharded(tmp_path / "source")
    for name in ("training_args.bin", "modeling.py", "optimizer.pt", "rng.pkl", "model.safetensors.index.json"):
        (source / name).write_text("{}")
    (source / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.5}')
    (source / "vocab.txt").write_text("words")
    (source / "inner").mkdir()
    import_folder(source, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "vocab.txt",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["temperature"] == 0.5


class Payload:
    """What a hostile pickle holds: unpickling it in earnest creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_nothing_runs(zipped: bool, tmp_path: Path) -> None:
    run = tmp_path / "run"
    source = pickled(tmp_path / "source")
    hostile = {**state("llama"), "lm_head.weight": Payload(run)}
    torch.save(hostile, source / WEIGHTS, _use_new_zipfile_serialization=zipped)
    refused(source, rf"{WEIGHTS}: a pickle that calls (posix|nt)\.mkdir; it was not run")
    assert not run.exists()
    torch.load(source / WEIGHTS, weights_only=False)
    assert run.exists()  # the payload is a live one


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_is_refused_and_nothing_runs(protocol: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    source = pickled(tmp_path / "source")
    (source / WEIGHTS).write_bytes(pickle.dumps({"a": Payload(run)}, protocol))
    refused(source, WEIGHTS)
    assert not run.exists()


def test_a_hostile_shard_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    source = sharded(tmp_path / "source")
    torch.save({"a": Payload(tmp_path / "run")}, source / "pytorch_model-00002-of-00002.bin")
    refused(source, "00002-of-00002.bin: a pickle that calls")
    assert not (tmp_path / "run").exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(tiny("llama"), pickled(tmp_path / "source") / WEIGHTS)
    refused(tmp_path / "source", "a pickle that calls transformers.models.llama")


@pytest.mark.parametrize("code", [{"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}, {"model_type": "mine"}])
def test_remote_code_is_refused_and_not_run(code: dict[str, Any], tmp_path: Path) -> None:
    source = pickled(tmp_path / "source", **code)
    (source / "modeling.py").write_text(f"import os; os.mkdir({str(tmp_path / 'run')!r})")
    refused(source, "auto_map names code" if "auto_map" in code else "transformers cannot read it")


def test_a_tokenizer_that_brings_code_is_refused(tmp_path: Path) -> None:
    source = pickled(tmp_path / "source")
    (source / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["words.Mine", null]}}')
    refused(source, "tokenizer_config.json: auto_map names code")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, "the weights are quantised"),
        ({"model_type": "vit"}, "model type 'vit' is no causal language model"),
        ({"hidden_size": 48}, r"shaped unlike the config's model: lm_head.weight is \(64, 32\), expected \(64, 48\)"),
        ({"hidden_size": "wide"}, "transformers cannot read it"),
        ({"num_hidden_layers": 1}, "hold what the config's model does not know: model.layers.1.input_layernorm.weight"),
        ({"num_hidden_layers": 3}, "lack what the config's model needs: model.layers.2.* and 6 more"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(config: dict[str, Any], told: str, tmp_path: Path) -> None:
    refused(pickled(tmp_path / "source", **config), told)


def test_missing_and_unknown_tensors_are_named_the_first_ones_first(tmp_path: Path) -> None:
    whole = state("llama")
    less = {key: tensor for key, tensor in whole.items() if "mlp" not in key}
    refused(
        pickled(tmp_path / "source", tensors=less),
        r"needs: model.layers.0.mlp.down_proj.weight, model.layers.0.mlp.gate_proj.weight, .* and 3 more",
    )
    refused(pickled(tmp_path / "source", tensors={**whole, "value.head": torch.ones(2)}), "does not know: value.head;")
    refused(pickled(tmp_path / "source", tensors={}), "lack what the config's model needs")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "expected a dictionary of tensors, found a list"),
        ({"a": 1}, "'a' is a int"),
        ({1: torch.ones(2)}, "1 is a Tensor"),
        ({"a": torch.eye(3).to_sparse()}, "dense tensors alone: 'a'"),
        ({"state_dict": {"a": torch.ones(2)}}, "'state_dict' is a dict"),
    ],
)
def test_files_that_hold_something_else_are_refused(content: object, told: str, tmp_path: Path) -> None:
    torch.save(content, pickled(tmp_path / "source") / WEIGHTS)
    refused(tmp_path / "source", told)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 2, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(kept: float, zipped: bool, tmp_path: Path) -> None:
    source = pickled(tmp_path / "source")
    torch.save(state("llama"), source / WEIGHTS, _use_new_zipfile_serialization=zipped)
    whole = (source / WEIGHTS).read_bytes()
    (source / WEIGHTS).write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    refused(source, "truncated, or not written by torch")


def test_what_is_no_weights_file_at_all_is_refused(tmp_path: Path) -> None:
    source = pickled(tmp_path / "source")
    for content in (b"<html>404 not found</html>", b"\x80\x02."):  # a pickle that takes from nothing
        (source / WEIGHTS).write_bytes(content)
        refused(source, "truncated, or not written by torch")
    (source / WEIGHTS).unlink()
    refused(source, f"{WEIGHTS}: missing; fetch")
    (source / "config.json").unlink()
    refused(source, r"config.json: missing; an importable folder holds config\.json")


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_broken_config_is_refused(text: str, tmp_path: Path) -> None:
    (pickled(tmp_path / "source") / "config.json").write_text(text, encoding="latin-1")
    refused(tmp_path / "source", "config.json: (not readable as JSON|expected a JSON object)")


@pytest.mark.parametrize("shard", ["../stray.bin", "/etc/passwd", "..", "inner/x.bin", "..\\x.bin", "C:x.bin", ""])
def test_a_shard_that_lies_elsewhere_is_refused(shard: str, tmp_path: Path) -> None:
    refused(reindexed(tmp_path / "source", **{"lm_head.weight": shard}), "shards must lie in the folder itself")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lm_head.weight": "pytorch_model-00003.bin"}, "pytorch_model-00003.bin: missing"),
        ({"a": "pytorch_model-00001-of-00002.bin"}, r"do not hold what it promises: a \(pytorch_model-00001"),
        ({"lm_head.weight": None}, r"hold what it does not list: lm_head.weight \(pytorch_model-0000"),
        ({"lm_head.weight": 3}, "weight_map must map"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    refused(reindexed(tmp_path / "source", **changes), told)


def test_an_index_without_a_map_is_refused(tmp_path: Path) -> None:
    (sharded(tmp_path / "source") / INDEX).write_text('{"weight_map": {}}')
    refused(tmp_path / "source", "weight_map must map")


def test_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="out exists; remove it"):
        import_folder(pickled(tmp_path / "source"), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_of_safetensors_needs_no_import(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path / "source")
    refused(tmp_path / "source", "holds safetensors already; use the folder as it is")
