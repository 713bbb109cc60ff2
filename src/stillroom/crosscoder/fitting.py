"""A crosscoder from paired activations, through the one loop."""

from dataclasses import dataclass

from stillroom.crosscoder.data import Mixer, Normal, Source, calibrate
from stillroom.crosscoder.model import Crosscoder, CrosscoderConfig, initial
from stillroom.crosscoder.objective import CrosscoderObjective
from stillroom.store import Workplace
from stillroom.training import FitConfig, fit


@dataclass(frozen=True)
class Fitted:
    crosscoder: Crosscoder
    normal: Normal
    told: dict[str, int]
    """Counters: tokens drawn, distinct ones among them, those used again, dead latents."""


def fit_crosscoder(source: Source, config: CrosscoderConfig, fit_config: FitConfig, at: Workplace) -> Fitted:
    """Calibrate, then train; a killed run goes on where it stopped. Writes `metrics.jsonl` below `at.out`.

    Raises `UsageError` for a dictionary smaller than k, `DataError` for activations that cannot be learned from.
    """
    normal = calibrate(source, fit_config.seed)
    models, width = normal.mean_MD.shape
    crosscoder = initial(config, models, width, fit_config.seed)
    crosscoder.mean_MD.copy_(normal.mean_MD)
    crosscoder.scale_M.copy_(normal.scale_M)
    objective = CrosscoderObjective(crosscoder, config)
    mixer = Mixer(source, normal, fit_config.batch_size, fit_config.seed)
    fit(objective, mixer.batches(objective.terms), fit_config, at)
    crosscoder.cpu().eval()
    used, distinct = fit_config.updates, min(fit_config.updates, mixer.per_epoch)
    told = {
        "tokens drawn": used * fit_config.batch_size,
        "distinct tokens": distinct * fit_config.batch_size,
        "tokens used again": (used - distinct) * fit_config.batch_size,
        "dead latents": int((objective.silent_F > config.dead_after).sum()),
    }
    return Fitted(crosscoder, normal, told)
