"""Crosscoders on disk, in the layout of `crosscoder_learning` (science-of-finetuning), published ones and ours.

A folder holds `config.json` and `model.safetensors` with `encoder.weight` (M, D, F), `encoder.bias` (F),
`decoder.weight` (M, F, D), `decoder.bias` (M, D), `k`, `threshold` and `code_normalization_id`; where activations are
normalised, `activation_mean` (M, D), `activation_std` (M, D), `activation_global_scale` (M) and `target_rms` too. A
single `.pt` file of the same tensors is read as tensors alone: nothing in it is executed.

Legend: M models, D width, F latents.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stillroom.crosscoder.model import Crosscoder
from stillroom.errors import DataError, first_fault
from stillroom.files import write_json

CROSSCODER = 1
"""Their number for products with Σ_m ‖d_m‖ behind the threshold; 4 is none."""
RMS = 1.0
NEEDED = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
SHAPES = {
    "encoder.weight": "MDF", "encoder.bias": "F", "decoder.weight": "MFD", "decoder.bias": "MD",
    "activation_mean": "MD", "activation_std": "MD", "activation_global_scale": "M", "target_rms": "",
    "k": "", "threshold": "", "code_normalization_id": "",
}  # fmt: skip


class About(BaseModel):
    """What we say of a crosscoder of ours."""

    models: tuple[str, ...] | None = None
    layer: int | None = None


class Told(BaseModel):
    """What `config.json` says, as far as it is compared with the tensors."""

    activation_dim: int | None = None
    dict_size: int | None = None
    num_layers: int | None = None
    k: int | None = None
    code_normalization: str | int | None = None
    stillroom: About | None = None


def save(crosscoder: Crosscoder, folder: Path, about: dict[str, Any] | None = None) -> None:
    """Write both files. `about` (which models, which layer) stands in `config.json` under `stillroom`."""
    shape = (crosscoder.latents, crosscoder.models, crosscoder.width)
    encoder_FW, decoder_FW = (weight.detach() for weight in crosscoder.weights())
    sparse = float(crosscoder.threshold) > 0
    scale_M = crosscoder.scale_M
    std_MD = (RMS / scale_M / crosscoder.width**0.5)[:, None].expand(-1, crosscoder.width)
    tensors = {
        "encoder.weight": encoder_FW.view(shape).permute(1, 2, 0),
        "encoder.bias": crosscoder.encoder_bias_F.detach(),
        "decoder.weight": decoder_FW.view(shape).permute(1, 0, 2),
        "decoder.bias": crosscoder.decoder_bias_W.detach().view(shape[1:]),
        "code_normalization_id": torch.tensor(CROSSCODER),
        "activation_mean": crosscoder.mean_MD,
        "activation_std": std_MD,
        "activation_global_scale": scale_M,
        "target_rms": torch.tensor(RMS),
    }
    if sparse:
        tensors |= {"k": torch.tensor(crosscoder.k, dtype=torch.int), "threshold": crosscoder.threshold}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    config: dict[str, Any] = {
        "dict_class": "BatchTopKCrossCoder" if sparse else "CrossCoder",
        "activation_dim": crosscoder.width,
        "dict_size": crosscoder.latents,
        "num_layers": crosscoder.models,
        "code_normalization": "CROSSCODER",
        **({"k": crosscoder.k} if sparse else {}),
        **({"stillroom": about} if about else {}),
    }
    write_json(folder / "config.json", config)


def load(path: Path, models: tuple[str, ...] | None = None, layer: int | None = None) -> Crosscoder:
    """A crosscoder from a folder, or from a `.pt` or `.safetensors` file.

    Raises `DataError` for what is none: tensors of other shapes than this file's head says or of other sizes than the
    folder's `config.json`, weights that are not finite, a scale that is not above 0, a k below 1, code scaling or
    normalisation that we do not have; and, where `models` or `layer` are given and the folder says otherwise, for one
    of other models or of another layer.
    """
    told, tensors = _told(path), _tensors(path)
    _refuse_others(path, told.stillroom or About(), models, layer)
    sizes = _sizes(path, tensors)
    k = _whole(path, tensors, "k", 1 if told.k is None else told.k)
    _refuse_contradiction(path, told, tensors, {**sizes, "k": k})
    if not 1 <= k <= sizes["F"]:
        raise DataError(f"{path}: k is {k}; expected 1 to {sizes['F']}, the number of latents: fetch or train it again")
    encoder_MDF, decoder_MFD = tensors["encoder.weight"].float(), tensors["decoder.weight"].float()
    crosscoder = Crosscoder(sizes["M"], sizes["D"], sizes["F"], k)
    with torch.no_grad():
        crosscoder.encoder_FW.copy_(encoder_MDF.permute(2, 0, 1).flatten(1))
        crosscoder.decoder_FW.copy_(decoder_MFD.permute(1, 0, 2).flatten(1))
        crosscoder.encoder_bias_F.copy_(tensors["encoder.bias"])
        crosscoder.decoder_bias_W.copy_(tensors["decoder.bias"].flatten())
        crosscoder.threshold.copy_(tensors.get("threshold", torch.tensor(0.0)).clamp(min=0))
        if "activation_mean" in tensors and not tensors["activation_mean"].isnan().all():
            if "activation_global_scale" not in tensors:
                raise DataError(f"{path}: activation_mean without activation_global_scale, the one scaling known here")
            crosscoder.mean_MD.copy_(tensors["activation_mean"])
            crosscoder.scale_M.copy_(tensors["activation_global_scale"])
    for name, tensor in crosscoder.state_dict().items():
        if not tensor.isfinite().all():
            raise DataError(f"{path}: {name} holds numbers that are not finite: fetch or train it again")
    if not (crosscoder.scale_M > 0).all():
        raise DataError(f"{path}: activation_global_scale is not above 0: fetch or train it again")
    return crosscoder.eval()


def _sizes(path: Path, tensors: dict[str, Tensor]) -> dict[str, int]:
    """M, D and F, which the encoder says and every other tensor must keep to."""
    if missing := [name for name in NEEDED if name not in tensors]:
        raise DataError(f"{path}: no {', '.join(missing)}, so this is no crosscoder of crosscoder_learning")
    encoder = tensors["encoder.weight"]
    if encoder.ndim != 3 or not encoder.numel():
        raise DataError(f"{path}: the encoder is {tuple(encoder.shape)}; expected (models, width, latents)")
    sizes = dict(zip("MDF", encoder.shape, strict=True))
    for name, letters in SHAPES.items():
        if name not in tensors:
            continue
        tensor, wanted = tensors[name], tuple(sizes[letter] for letter in letters)
        if tensor.shape != wanted:
            raise DataError(
                f"{path}: the encoder is {tuple(encoder.shape)}, so {name} must be {wanted}, and it is "
                f"{tuple(tensor.shape)}: fetch or train it again"
            )
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized or tensor.is_meta:
            raise DataError(f"{path}: {name} is no plain tensor of real numbers ({tensor.dtype}, {tensor.layout})")
    return sizes


def _whole(path: Path, tensors: dict[str, Tensor], name: str, absent: int) -> int:
    value = float(tensors.get(name, torch.tensor(absent)))
    if not value.is_integer():
        raise DataError(f"{path}: {name} is {value}; expected a whole number: fetch or train it again")
    return int(value)


def _refuse_contradiction(path: Path, told: Told, tensors: dict[str, Tensor], found: dict[str, int]) -> None:
    """Where `config.json` says other sizes than the tensors have, or a code scaling that we do not know."""
    for name, letter in (("num_layers", "M"), ("activation_dim", "D"), ("dict_size", "F"), ("k", "k")):
        if (said := getattr(told, name)) is not None and said != found[letter]:
            raise DataError(
                f"{path}: its config.json says {name} {said}, and its tensors {found[letter]}: take both from one run"
            )
    scaling = _whole(path, tensors, "code_normalization_id", CROSSCODER)
    named = str(told.code_normalization or CROSSCODER).upper() in ("CROSSCODER", str(CROSSCODER))
    if "threshold" in tensors and not (named and scaling == CROSSCODER):
        raise DataError(f"{path}: its threshold is on codes of another scaling than Σ ‖d‖, which is not known here")


def _told(path: Path) -> Told:
    file = path / "config.json"
    if not file.is_file():
        return Told()
    try:
        return Told.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise DataError(f"{file}: {first_fault(error)}; fetch it again, or mend it") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        if file.suffix == ".pt":
            found = torch.load(file, map_location="cpu", weights_only=True)
            return {name: value for name, value in dict(found).items() if isinstance(value, Tensor)}
        return load_file(file)
    except (
        OSError,
        EOFError,
        SafetensorError,
        UnpicklingError,
        RuntimeError,
        LookupError,
        ValueError,
        TypeError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{file}: no crosscoder can be read from it ({reason})") from None


def _refuse_others(path: Path, about: About, models: tuple[str, ...] | None, layer: int | None) -> None:
    if models is not None and about.models is not None and about.models != models:
        raise DataError(
            f"{path}: made from the activations of {', '.join(about.models)}, and asked about {', '.join(models)}: "
            "choose the models that it was made from, or train another"
        )
    if layer is not None and about.layer is not None and about.layer != layer:
        raise DataError(f"{path}: made from layer {about.layer}, and asked about layer {layer}: choose that layer")
