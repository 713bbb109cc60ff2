"""An exported folder says what the student says, to programs that know nothing of Stillroom, or it does not appear."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from architectures import NAMES, TIED, tiny, tokens
from stillroom.errors import DataError, StoreError
from stillroom.students.adapters import AdapterConfig, attach, merged
from stillroom.students.exporting import card, export_merged
from toys import tokenizer

IDS_BT = tokens()


def folder_of(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name != "qwen2"]
)  # whose class of tokenizer is not the toy's
def test_an_exported_student_answers_alike(name: str, tmp_path: Path) -> None:
    wrapped = attach(tiny(name), AdapterConfig(name="lora"), grown=True)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = wrapped.eval()(IDS_BT).logits
    assert (expected - tiny(name)(IDS_BT).logits).abs().max() > 0.1
    export_merged(merged(wrapped), tokenizer(), tmp_path / "out", "# A card\n")
    assert set(folder_of(tmp_path / "out")) == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert (again(IDS_BT).logits - expected).abs().max() < 1e-5
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == (name in TIED)
    words = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert words("Ann has 3 eggs")["input_ids"] == tokenizer()("Ann has 3 eggs")["input_ids"]


def test_a_bfloat16_student_stays_so(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path / "source")  # `.bfloat16()` would round the rotary frequencies as well
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "source", dtype=torch.bfloat16, attn_implementation="eager")
    export_merged(model, tokenizer(), tmp_path / "out", "")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto", attn_implementation="eager")
    assert again.dtype == torch.bfloat16
    assert torch.equal(again(IDS_BT).logits, model(IDS_BT).logits)


def test_the_mode_of_the_model_is_left_alone(tmp_path: Path) -> None:
    for training in (True, False):
        model = tiny("llama").train(training)
        export_merged(model, tokenizer(), tmp_path / str(training), "")
        assert model.training is training


def altered(model: PreTrainedModel) -> PreTrainedModel:
    """The model with a change to its logits that its weights do not hold."""
    model.lm_head.register_forward_hook(lambda module, given, output: output + 2e-5)
    return model


def broken(model: PreTrainedModel) -> PreTrainedModel:
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    return model


@pytest.mark.parametrize(("change", "by"), [(altered, "2"), (broken, "nan")])
def test_a_folder_that_would_answer_otherwise_never_appears(change, by: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"was not written: reloaded, its logits differ by {by}"):
        export_merged(change(tiny("llama")), tokenizer(), tmp_path / "out", "")
    assert folder_of(tmp_path) == []


def test_a_tokenizer_that_comes_back_otherwise_is_refused(tmp_path: Path) -> None:
    words = tokenizer()
    save = words.save_pretrained

    def forgetful(folder: Path) -> None:
        save(folder)
        said = json.loads((folder / "tokenizer.json").read_text())
        said["model"]["vocab"][" 3"], said["model"]["vocab"][" 4"] = (said["model"]["vocab"][f" {n}"] for n in (4, 3))
        (folder / "tokenizer.json").write_text(json.dumps(said))

    words.save_pretrained = forgetful  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreError, match="was not written: its tokenizer reads a probe text as"):
        export_merged(tiny("llama"), words, tmp_path / "out", "")
    assert folder_of(tmp_path) == []


def test_an_adapter_or_a_target_that_exists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds an adapter or quantised weights; export adapters.merged\(model\)"):
        export_merged(attach(tiny("llama"), AdapterConfig(name="lora"), False), tokenizer(), tmp_path / "out", "")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="out exists; remove it"):
        export_merged(tiny("llama"), tokenizer(), tmp_path / "out", "")
    assert folder_of(tmp_path / "out") == []


def test_a_card_has_front_matter_and_a_section_a_heading() -> None:
    text = card(
        "Student: distilled",
        {"base_model": "base: one", "datasets": ["abacus"], "license": None, "language": "no"},
        {
            "Data": {"task": "abacus", "problems": 1200, "kept": None},
            "Teacher": "Arithmetic written out by rule.",
            "Scores": [{"task": "a|b", "accuracy": 2 / 3}, {"task": "other\nline", "n": 3}],
            "Config": None,
            "Variant": {},
        },
    )
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {"base_model": "base: one", "datasets": ["abacus"], "language": "no"}
    assert body == (
        "\n# Student: distilled\n\n"
        "## Data\n\n|  |  |\n| --- | --- |\n| task | abacus |\n| problems | 1200 |\n\n"
        "## Teacher\n\nArithmetic written out by rule.\n\n"
        "## Scores\n\n| task | accuracy | n |\n| --- | --- | --- |\n| a\\|b | 0.6667 |  |\n| other line |  | 3 |\n\n"
        "## Variant\n\nNothing is known.\n"
    )
