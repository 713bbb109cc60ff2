"""In and out of the published layout, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stillroom.crosscoder.interchange import load, save
from stillroom.crosscoder.model import Crosscoder, CrosscoderConfig, initial
from stillroom.errors import DataError
from stillroom.files import read_json, write_json

ABOUT = {"models": ["base", "distilled"], "layer": 2}


def trained() -> Crosscoder:
    crosscoder = initial(CrosscoderConfig(expansion=2, k=3), 2, 16, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (crosscoder.encoder_bias_F, crosscoder.decoder_bias_W, crosscoder.mean_MD):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        crosscoder.scale_M.copy_(torch.tensor([0.5, 3.0]))
        crosscoder.threshold.fill_(0.2)
    return crosscoder


def theirs(tensors: dict[str, Tensor], x_BMD: Tensor) -> tuple[Tensor, Tensor]:
    """What the published layout means, written out: values with threshold, and the reconstruction."""
    scale_M1 = tensors["activation_global_scale"][:, None]
    normal_BMD = (x_BMD - tensors["activation_mean"]) * scale_M1
    value_BF = (torch.einsum("bmd,mdf->bf", normal_BMD, tensors["encoder.weight"]) + tensors["encoder.bias"]).relu()
    norm_F = tensors["decoder.weight"].norm(dim=2).sum(dim=0)
    value_BF = value_BF * (value_BF * norm_F > tensors["threshold"])
    out_BMD = torch.einsum("bf,mfd->bmd", value_BF, tensors["decoder.weight"]) + tensors["decoder.bias"]
    return value_BF, out_BMD / scale_M1 + tensors["activation_mean"]


def test_what_is_saved_means_the_same_in_the_published_layout(tmp_path: Path) -> None:
    crosscoder = trained()
    save(crosscoder, tmp_path, ABOUT)
    tensors = load_file(tmp_path / "model.safetensors")
    x_BMD = torch.randn(20, 2, 16, generator=torch.Generator().manual_seed(2))
    value_BF, out_BMD = theirs(tensors, x_BMD)
    assert 0 < int((value_BF > 0).sum()) < value_BF.numel() / 2
    torch.testing.assert_close(crosscoder.encode(x_BMD), value_BF)
    torch.testing.assert_close(crosscoder.decode(value_BF), out_BMD)
    std_MD = tensors["activation_std"]
    torch.testing.assert_close(
        tensors["target_rms"] / std_MD.square().sum(dim=1).sqrt(), tensors["activation_global_scale"]
    )
    told = json.loads((tmp_path / "config.json").read_text())
    assert (told["activation_dim"], told["dict_size"], told["num_layers"], told["k"]) == (16, 32, 2, 3)


@pytest.mark.parametrize("kind", ["folder", "pt"])
def test_a_crosscoder_comes_back_as_it_went(kind: str, tmp_path: Path) -> None:
    crosscoder = trained()
    save(crosscoder, tmp_path, ABOUT)
    path = tmp_path
    if kind == "pt":
        path = tmp_path / "model_final.pt"
        torch.save(load_file(tmp_path / "model.safetensors"), path)
    again = load(path)
    for name, tensor in crosscoder.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, msg=name)
    assert again.k == 3


def test_an_older_file_without_normalisation_reads_raw_activations(tmp_path: Path) -> None:
    save(trained(), tmp_path)
    kept = {k: v for k, v in load_file(tmp_path / "model.safetensors").items() if not k.startswith(("activ", "target"))}
    save_file(kept, tmp_path / "model.safetensors")
    again = load(tmp_path)
    assert (again.mean_MD == 0).all() and (again.scale_M == 1).all()


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    save(trained(), tmp_path, ABOUT)
    with pytest.raises(DataError, match="made from the activations of base, distilled, and asked about base, normal"):
        load(tmp_path, models=("base", "normal"))
    with pytest.raises(DataError, match="made from layer 2, and asked about layer 1"):
        load(tmp_path, layer=1)
    assert load(tmp_path, models=("base", "distilled"), layer=2).latents == 32
    tensors = load_file(tmp_path / "model.safetensors")
    for change, message in (
        ({"encoder.bias": None}, "no encoder.bias"),
        ({"decoder.bias": torch.full((2, 16), torch.nan)}, "decoder_bias_W holds numbers that are not finite"),
        ({"decoder.weight": tensors["encoder.weight"].clone()}, "the encoder is"),
        ({"code_normalization_id": torch.tensor(2)}, "another scaling"),
    ):
        changed = {name: value for name, value in {**tensors, **change}.items() if value is not None}
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(DataError, match=message):
            load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="no crosscoder can be read"):
        load(tmp_path)


def test_a_file_that_would_run_code_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "ae.pt"
    torch.save({"encoder.weight": print}, path)
    with pytest.raises(DataError, match="no crosscoder can be read"):
        load(path)


NAN = torch.tensor(torch.nan)
MEAN = torch.zeros(2, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.bias": torch.zeros(1)}, r"encoder.bias must be \(32,\), and it is \(1,\)"),
        ({"encoder.bias": torch.tensor(0.0)}, r"encoder.bias must be \(32,\), and it is \(\)"),
        ({"encoder.bias": torch.zeros(5)}, "encoder.bias must be"),
        ({"decoder.bias": torch.zeros(1)}, r"decoder.bias must be \(2, 16\)"),
        ({"activation_mean": torch.zeros(16)}, r"activation_mean must be \(2, 16\)"),
        ({"activation_mean": torch.zeros(2, 9)}, r"activation_mean must be \(2, 16\)"),
        ({"activation_global_scale": torch.ones(1)}, r"activation_global_scale must be \(2,\)"),
        ({"activation_global_scale": None}, "activation_mean without activation_global_scale"),
        ({"activation_global_scale": torch.tensor([1.0, 0.0])}, "not above 0"),
        ({"activation_global_scale": torch.tensor([1.0, -2.0])}, "not above 0"),
        ({"activation_mean": MEAN.index_put((torch.tensor(1), torch.tensor(3)), NAN)}, "mean_MD holds numbers that"),
        ({"k": torch.tensor(0)}, "k is 0"),
        ({"k": torch.tensor(-4)}, "k is -4"),
        ({"k": torch.tensor(33)}, "k is 33; expected 1 to 32"),
        ({"k": NAN}, "k is nan; expected a whole number"),
        ({"k": torch.tensor([3, 3])}, r"k must be \(\)"),
        ({"code_normalization_id": torch.tensor([1, 1])}, r"code_normalization_id must be \(\)"),
        ({"threshold": torch.zeros(3)}, r"threshold must be \(\)"),
        ({"encoder.weight": torch.zeros(16, 32)}, r"the encoder is \(16, 32\); expected \(models"),
        ({"encoder.weight": torch.zeros(1, 2, 16, 32)}, "expected .models, width, latents"),
        ({"encoder.weight": torch.zeros(2, 16, 32, dtype=torch.complex64)}, "no plain tensor of real numbers"),
        ({"decoder.weight": torch.zeros(2, 32, 16).to_sparse()}, "no plain tensor of real numbers"),
    ],
)
def test_tensors_that_would_be_spread_out_or_mean_nothing_are_refused(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    save(trained(), tmp_path)
    changed = {**load_file(tmp_path / "model.safetensors"), **change}
    torch.save({name: value for name, value in changed.items() if value is not None}, tmp_path / "ae.pt")
    with pytest.raises(DataError, match=message):
        load(tmp_path / "ae.pt")


def test_a_mean_of_nan_alone_means_that_nothing_is_normalised(tmp_path: Path) -> None:
    save(trained(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "activation_mean": MEAN * torch.nan}, tmp_path / "model.safetensors")
    assert (load(tmp_path).scale_M == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dict_size": 4}, "its config.json says dict_size 4, and its tensors 32"),
        ({"activation_dim": 99}, "says activation_dim 99, and its tensors 16"),
        ({"num_layers": 3}, "says num_layers 3, and its tensors 2"),
        ({"k": 5}, "says k 5, and its tensors 3"),
        ({"code_normalization": "NONE"}, "another scaling"),
        ({"stillroom": []}, "config.json: stillroom: "),
        ({"stillroom": {"models": 5}}, "config.json: stillroom.models: "),
        ({"stillroom": {"layer": "two"}}, "config.json: stillroom.layer: "),
    ],
)
def test_a_config_that_contradicts_its_tensors_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    save(trained(), tmp_path, ABOUT)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["code_normalization_id"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert load(tmp_path, ("base", "distilled"), 2).k == 3
    write_json(tmp_path / "config.json", {**read_json(tmp_path / "config.json"), **change})
    with pytest.raises(DataError, match=message):
        load(tmp_path, ("base", "distilled"), 2)


def test_files_that_are_no_json_no_object_or_empty_are_refused(tmp_path: Path) -> None:
    save(trained(), tmp_path)
    for content in (b"{", b"[1]", b"\xff"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(DataError, match=r"config\.json: "):
            load(tmp_path)
    (tmp_path / "ae.pt").touch()
    with pytest.raises(DataError, match="no crosscoder can be read"):
        load(tmp_path / "ae.pt")
