"""A crosscoder: one dictionary that reads the activations of several models at once and writes each of them back.

    f = σ( Σ_m E_m (x_m − μ_m) s_m + b )        x̂_m = ( D_m f + c_m ) / s_m + μ_m

σ is a ReLU, with BatchTopK behind a threshold on f · Σ_m ‖d_m‖. Each model is centred and scaled on its own, and μ, s
are kept with the weights, so that all who read with a crosscoder normalise as it was trained (Lindsey et al. 2024;
Minder et al. 2025, arXiv 2504.02922; dedicated latents: arXiv 2602.11729).

Legend: B tokens, M models, D width of one model, W = M · D, F latents.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stillroom.config import Config
from stillroom.errors import DataError, UsageError


class CrosscoderConfig(Config):
    """What decides a dictionary, the data and the length of its training excepted."""

    expansion: int = Field(16, ge=1)
    """Latents for each dimension of one model."""
    sparsity: Literal["batch_topk", "l1"] = "batch_topk"
    k: int = Field(32, ge=1)
    """With `batch_topk`: active latents a token, on average over a batch."""
    k_first: int | None = Field(None, ge=1)
    """Where `k` starts, to be lowered over the first `anneal` tokens."""
    anneal: int = Field(0, ge=0)
    l1: float = Field(2.0, gt=0)
    """With `l1`: λ of λ Σ f Σ_m ‖d_m‖, beside the summed squared error as in the paper (arXiv 2503.03730)."""
    l1_warmup: int = Field(0, ge=0)
    """Tokens over which λ rises from 0."""
    squared: bool = True
    """Learn from ‖x − x̂‖²; from ‖x − x̂‖ where false."""
    dedicated: float = Field(0.0, ge=0, lt=1)
    """Share of the latents that each model has for itself alone."""
    decoder_norm: float = Field(0.1, gt=0)
    """Norm of each model's part of a decoder row before training."""
    alike: bool = False
    """Start all models from the same directions."""
    aux: float = Field(1 / 32, ge=0)
    """Weight of AuxK: dead latents learn to explain what the living leave over."""
    dead_after: int = Field(200_000, ge=1)
    """Tokens without firing after which a latent is dead."""

    def outlasting(self, tokens: int) -> str:
        """What would still be changing after so many tokens, and what to do; empty where all has come to its end."""
        field, end = ("anneal", self.anneal if self.k_first else 0)
        if self.sparsity == "l1":
            field, end = "l1_warmup", self.l1_warmup
        if end <= tokens:
            return ""
        return (
            f"dictionary.{field} is {end:,} tokens, but training ends after {tokens:,} (updates × batch_size): lower "
            f"dictionary.{field}, or raise fit.updates or fit.batch_size"
        )


class Crosscoder(nn.Module):
    """Weights, normalisation and threshold. Raises `UsageError` for a dictionary smaller than k."""

    encoder_FW: nn.Parameter
    decoder_FW: nn.Parameter
    mean_MD: Tensor
    scale_M: Tensor
    threshold: Tensor
    own_FM: Tensor

    def __init__(self, models: int, width: int, latents: int, k: int) -> None:
        super().__init__()
        if latents < k:
            raise UsageError(f"a dictionary of {latents} latents is smaller than k = {k}: raise expansion or lower k")
        self.models, self.width, self.latents, self.k = models, width, latents, k
        self.encoder_FW = nn.Parameter(torch.zeros(latents, models * width))
        self.encoder_bias_F = nn.Parameter(torch.zeros(latents))
        self.decoder_FW = nn.Parameter(torch.zeros(latents, models * width))
        self.decoder_bias_W = nn.Parameter(torch.zeros(models * width))
        self.register_buffer("mean_MD", torch.zeros(models, width))
        self.register_buffer("scale_M", torch.ones(models))
        self.register_buffer("threshold", torch.tensor(0.0))
        self.register_buffer("own_FM", torch.ones(latents, models))
        self.partitioned = False

    def dedicate(self, share: float) -> None:
        """Keep `share` of the latents for each model alone, the first model's first; the rest is shared."""
        each = int(share * self.latents)
        if each * self.models >= self.latents:
            raise UsageError(f"dedicated: {self.models} × {share} of the latents leaves none to share: lower it")
        for model in range(self.models if each else 0):
            self.own_FM[model * each : (model + 1) * each] = 0
            self.own_FM[model * each : (model + 1) * each, model] = 1
        self.partitioned = bool(each)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Encoder and decoder (F, W), without what a dedicated latent may not touch."""
        if not self.partitioned:
            return self.encoder_FW, self.decoder_FW
        own_FW = self.own_FM.repeat_interleave(self.width, dim=1)
        return self.encoder_FW * own_FW, self.decoder_FW * own_FW

    def decoders(self) -> Tensor:
        """What each latent writes to each model, normalised: (F, M, D), without gradient."""
        return self.weights()[1].detach().view(self.latents, self.models, self.width)

    def norms(self) -> Tensor:
        """‖d_m‖ of each latent: (F, M), without gradient."""
        return torch.as_tensor(self.decoders().norm(dim=2))

    def normalise(self, x_BMD: Tensor) -> Tensor:
        """Raises `DataError` for activations that are not of these models' shape."""
        if x_BMD.shape[-2:] != (self.models, self.width):
            raise DataError(
                f"activations of {x_BMD.shape[-2]} models of width {x_BMD.shape[-1]} were given to a crosscoder of "
                f"{self.models} models of width {self.width}: read both from the same models and layer"
            )
        return (x_BMD - self.mean_MD) * self.scale_M[:, None]

    def denormalise(self, x_BMD: Tensor) -> Tensor:
        return x_BMD / self.scale_M[:, None] + self.mean_MD

    @torch.no_grad()
    def encode(self, x_BMD: Tensor) -> Tensor:
        """Values (B, F) of all latents for raw activations; those below the threshold are 0."""
        encoder_FW, _ = self.weights()
        value_BF = nn.functional.linear(self.normalise(x_BMD).flatten(-2), encoder_FW, self.encoder_bias_F).relu()
        if float(self.threshold) > 0:
            value_BF *= value_BF * self.norms().sum(dim=1) > self.threshold
        return value_BF

    @torch.no_grad()
    def decode(self, value_BF: Tensor) -> Tensor:
        """Raw activations (B, M, D) from latents' values."""
        flat_BW = value_BF @ self.weights()[1] + self.decoder_bias_W
        return self.denormalise(flat_BW.view(*flat_BW.shape[:-1], self.models, self.width))


def initial(config: CrosscoderConfig, models: int, width: int, seed: int) -> Crosscoder:
    """An untrained crosscoder: random directions of norm `decoder_norm`, the encoder their transpose, no biases."""
    latents = config.expansion * width
    crosscoder = Crosscoder(models, width, latents, config.k if config.sparsity == "batch_topk" else 1)
    generator = torch.Generator().manual_seed(seed)
    drawn_FMD = torch.randn(latents, 1 if config.alike else models, width, generator=generator)
    unit_FMD = nn.functional.normalize(drawn_FMD, dim=2).expand(latents, models, width)
    with torch.no_grad():
        crosscoder.decoder_FW.copy_(config.decoder_norm * unit_FMD.flatten(1))
        crosscoder.encoder_FW.copy_(crosscoder.decoder_FW)
        crosscoder.dedicate(config.dedicated)
    return crosscoder
