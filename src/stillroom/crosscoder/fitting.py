"""A crosscoder from paired activations, through the one loop.

Legend: B tokens of an update, W models side by side, T all tokens of a source.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillroom.crosscoder.data import Mixer, Normal, Source, calibrate
from stillroom.crosscoder.model import Crosscoder, CrosscoderConfig, initial
from stillroom.crosscoder.objective import CrosscoderObjective
from stillroom.errors import ConfigError
from stillroom.store import Workplace
from stillroom.training import FitConfig, fit


@dataclass(frozen=True)
class Fitted:
    crosscoder: Crosscoder
    normal: Normal
    told: dict[str, int]
    """Counters: tokens drawn, distinct ones among them, those used again, dead latents."""


class Counted(nn.Module):
    """The objective, and which of the source's tokens it was given: saved and resumed with the weights."""

    drawn_T: Tensor

    def __init__(self, objective: CrosscoderObjective, tokens: int) -> None:
        super().__init__()
        self.objective = objective
        self.register_buffer("drawn_T", torch.zeros(tokens, dtype=torch.bool))

    def forward(self, x_BW: Tensor, token_B: Tensor) -> dict[str, Tensor]:
        self.drawn_T.index_fill_(0, token_B, True)
        terms: dict[str, Tensor] = self.objective(x_BW)
        return terms


def fit_crosscoder(source: Source, config: CrosscoderConfig, fit_config: FitConfig, at: Workplace) -> Fitted:
    """Calibrate, then train; a killed run goes on where it stopped. Writes `metrics.jsonl` below `at.out`.

    With `fit_config.epochs`, an epoch is as many updates as the tokens fill, first ones of a text left out.

    Raises `UsageError` for a dictionary smaller than k, `ConfigError` for a schedule longer than training, `DataError`
    for activations that cannot be learned from.
    """
    normal = calibrate(source, fit_config.seed)
    models, width = normal.mean_MD.shape
    crosscoder = initial(config, models, width, fit_config.seed)
    crosscoder.mean_MD.copy_(normal.mean_MD)
    crosscoder.scale_M.copy_(normal.scale_M)
    objective = CrosscoderObjective(crosscoder, config)
    mixer = Mixer(source, normal, fit_config.batch_size, fit_config.seed)
    fit_config = fit_config.settled(mixer.per_epoch * fit_config.batch_size)
    if problem := config.outlasting(fit_config.updates * fit_config.batch_size):
        raise ConfigError(f"{at.name}: {problem}")
    counted = Counted(objective, sum(source.lengths))
    fit(counted, mixer.batches(objective.terms), fit_config, at)
    mixer.held.cache_clear()  # a pool is large, and the mixer and its caches hold each other
    crosscoder.cpu().eval()
    drawn, distinct = fit_config.updates * fit_config.batch_size, int(counted.drawn_T.sum())
    told = {
        "tokens drawn": drawn,
        "distinct tokens": distinct,
        "tokens used again": drawn - distinct,
        "dead latents": int((objective.silent_F > config.dead_after).sum()),
    }
    return Fitted(crosscoder, normal, told)
