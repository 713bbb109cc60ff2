"""A model in this process: recorded batch by batch, the same whether or not it was stopped, in 4 bits if asked for."""

import json
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from transformers import LlamaForCausalLM

from stillroom.errors import TeacherError
from stillroom.teachers.asking import Desk, LocalConfig
from stillroom.teachers.journal import Journal
from stillroom.teachers.local import Speaker
from stillroom.teachers.questions import Questions
from stillroom.teachers.teaching import ask_and_write
from toys import llama, tokenizer


def saved(tmp_path: Path, width: int) -> Path:
    words = tokenizer()
    config = llama(len(words)).config
    config.hidden_size, config.intermediate_size, config.head_dim = width, 2 * width, width // 2
    config.max_position_embeddings = 2048  # the prompt with its worked example is long
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path, 64)


def questions(folder: Path) -> Questions:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": f"Ann has {i} eggs and gets 1 ."}) + "\n" for i in range(9)))
    return Questions(path)


def answers(folder: Path, into: Path, **options: Any) -> list[str]:
    config = LocalConfig(folder=str(folder), max_new_tokens=6, **options)
    ask_and_write(config, questions(into), Desk(into / "journal.sqlite"), into / "cot.jsonl")
    return [json.loads(line)["cot"] for line in (into / "cot.jsonl").read_text().splitlines()]


def test_a_local_model_answers_and_is_not_asked_twice(folder: Path, tmp_path: Path) -> None:
    path = questions(tmp_path)
    config = LocalConfig(folder=str(folder), max_new_tokens=4, batch_size=2)
    desk = Desk(tmp_path / "journal.sqlite")
    assert ask_and_write(config, path, desk, tmp_path / "cot.jsonl")[:2] == (9, 0)
    whole = (tmp_path / "cot.jsonl").read_bytes()
    with Journal(desk.journal) as journal:
        journal._writer.execute("DELETE FROM requests WHERE key > '8'")
        kept = sum(row["requests"] for row in journal.summary())
    assert kept < 9
    ask_and_write(config, path, desk, tmp_path / "cot.jsonl")
    assert (tmp_path / "cot.jsonl").read_bytes() == whole
    sampled = config.model_copy(update={"samples": 2})
    assert ask_and_write(sampled, path, desk, tmp_path / "two.jsonl")[:2] == (18, 0)


def test_a_model_that_is_spread_by_itself_says_the_same(folder: Path, tmp_path: Path) -> None:
    plain = answers(folder, tmp_path)
    (tmp_path / "journal.sqlite").unlink()
    assert answers(folder, tmp_path, device_map="auto") == plain
    assert len(set(plain)) > 1


@pytest.mark.parametrize("spread", [None, "auto"])
def test_four_bits_are_nf4_and_compute_what_their_values_say(spread: Any, folder: Path) -> None:
    config = LocalConfig(folder=str(folder), four_bit=True, device_map=spread)
    quantised = Speaker(config, "cpu").model
    exact = Speaker(LocalConfig(folder=str(folder)), "cpu").model
    layers = [(n, m) for n, m in quantised.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 2 * 7
    for name, layer in layers:
        weight = layer.weight
        assert weight.quant_state.quant_type == "nf4"
        assert weight.numel() * 2 == exact.get_submodule(name).weight.numel()
        value = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        before_NK = exact.get_submodule(name).weight.detach().reshape(-1, 64)  # N blocks of K values share one scale
        off_N = (value.reshape(-1, 64) - before_NK).abs().amax(1) / before_NK.abs().amax(1)
        assert 0 < off_N.max() < 0.16  # half the widest gap of NF4's levels, -1 and -0.6962; scales are rounded too
        x_BD = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            y_BO = torch.nn.functional.linear(x_BD.bfloat16(), value.bfloat16()).float()
            assert torch.equal(layer(x_BD), y_BO)


def test_four_bit_answers_are_not_taken_for_exact_ones(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers(folder, tmp_path)
    answers(folder, tmp_path, four_bit=True)
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert {row["endpoint"]: row["requests"] for row in journal.summary()} == {"local": 9, "4-bit": 9}
    assert "kernels" not in capfd.readouterr().err


def test_four_bits_that_cannot_be_had_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LocalConfig(folder=str(folder), four_bit=True)
    with monkeypatch.context() as patch, pytest.raises(TeacherError, match=r"on device 'cpu', only on cuda; or keep"):
        patch.setattr(bitsandbytes, "supported_torch_devices", {"cuda"})
        Speaker(config, "cpu")
    with (
        monkeypatch.context() as patch,
        pytest.raises(TeacherError, match=r"pip install -e '\.\[gpu\]' in the checkout, or keep"),
    ):
        patch.setattr("importlib.util.find_spec", lambda name: None)
        Speaker(config, "cpu")


def test_four_bits_of_a_width_that_bitsandbytes_misreads_are_refused(tmp_path: Path) -> None:
    weights_NK = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    read_NK = bitsandbytes.functional.dequantize_4bit(*bitsandbytes.functional.quantize_4bit(weights_NK))
    assert (read_NK - weights_NK).abs().max() > 0.16 * weights_NK.abs().max()  # when this fails, refuse no more
    config = LocalConfig(folder=str(saved(tmp_path, 16)), four_bit=True)
    with pytest.raises(TeacherError, match=r"multiples of 64, and .*q_proj has 16: keep the weights whole"):
        Speaker(config, "cpu")


def test_a_folder_whose_weights_are_cut_short_is_told_of(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(TeacherError, match="no model that can be loaded"):
        Speaker(LocalConfig(folder=str(folder)), "cpu")
