"""Crosscoders against planted truth: directions, classes, artefacts, nulls, and what is refused."""

import gc
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from crosscoder_toys import LENGTH, Planted, planted
from stillroom.crosscoder import CrosscodersConfig
from stillroom.crosscoder.data import Freshness, Mixer, Tokens, calibrate
from stillroom.crosscoder.features import (
    delta_norm,
    explained,
    firing,
    genuine,
    kinds,
    latent_scaling,
    nrn,
)
from stillroom.crosscoder.fitting import Fitted, fit_crosscoder
from stillroom.crosscoder.model import Crosscoder, CrosscoderConfig, initial
from stillroom.crosscoder.objective import CrosscoderObjective
from stillroom.errors import ConfigError, DataError, TrainingError, UsageError
from stillroom.training import FitConfig
from toys import workplace

TOPK = CrosscoderConfig(expansion=4, k=3, k_first=12, anneal=250 * 512, dead_after=20_000)
L1 = CrosscoderConfig(expansion=2, sparsity="l1", l1=1.0)


def settings(updates: int, **changes: object) -> FitConfig:
    plain = {"updates": updates, "batch_size": 512, "learning_rate": 3e-3, "precision": "float32", "threads": 1}
    return FitConfig(**{**plain, **changes})


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Fitted, Planted, list[str]]]:
    found = {}
    strong = L1.model_copy(update={"l1": 1.5})
    for name, weak, dictionary in (
        ("batch_topk", None, TOPK),
        ("l1", None, L1),
        ("weak batch_topk", 0.25, TOPK),
        ("weak l1", 0.25, strong),
    ):
        source, kinds_of = planted(weak)
        at = workplace(tmp_path_factory.mktemp(name.replace(" ", "-")))
        found[name] = (fit_crosscoder(source, dictionary, settings(600), at), source, kinds_of)
    return found


def raw_decoders(crosscoder: Crosscoder) -> Tensor:
    return crosscoder.decoders() / crosscoder.scale_M[:, None]


def matches(crosscoder: Crosscoder, source: Planted) -> tuple[Tensor, Tensor]:
    """The best cosine of each planted feature with a latent, over both models, and that latent."""
    true_KW = nn.functional.normalize(source.direction_KMD.flatten(1), dim=1)
    best = (true_KW @ nn.functional.normalize(raw_decoders(crosscoder).flatten(1), dim=1).T).max(dim=1)
    return best.values, best.indices


@pytest.mark.parametrize("name", ["batch_topk", "l1"])
def test_planted_directions_and_their_classes_are_recovered(name: str, fits) -> None:
    fitted, source, kinds_of = fits[name]
    cosine_K, latent_K = matches(fitted.crosscoder, source)
    assert (cosine_K > 0.9).float().mean() >= 0.95
    found = kinds(raw_decoders(fitted.crosscoder), firing(fitted.crosscoder, source.read(range(200))).live)
    told = {"a-only": found.reference, "b-only": found.subject, "shared": found.shared, "rotated": found.shared}
    right = [bool(told[kind][latent]) for kind, latent in zip(kinds_of, latent_K.tolist(), strict=True)]
    assert sum(right) / len(right) >= 0.9


def test_most_is_explained_at_the_k_that_was_asked_for(fits) -> None:
    fitted, source, _ = fits["batch_topk"]
    variance_M, active = explained(fitted.crosscoder, source.read(range(1000, 1200)))
    assert (variance_M > 0.9).all()
    assert active == pytest.approx(3, abs=0.4)


def test_l1_takes_what_a_model_holds_weakly_away_and_latent_scaling_says_so(fits) -> None:
    fitted, source, kinds_of = fits["weak l1"]
    cosine_K, latent_K = matches(fitted.crosscoder, source)
    tokens = source.read(range(300))
    delta_F = delta_norm(raw_decoders(fitted.crosscoder))
    real_F = genuine(latent_scaling(fitted.crosscoder, tokens))
    shared = [int(at) for at, c, kind in zip(latent_K, cosine_K, kinds_of, strict=True) if kind == "shared" and c > 0.9]
    only_b = [int(at) for at, c, kind in zip(latent_K, cosine_K, kinds_of, strict=True) if kind == "b-only" and c > 0.9]
    fooled = [latent for latent in shared if delta_F[latent] >= 0.9]
    assert len(fooled) >= 8  # the norms say that model b alone has them, and the data was made otherwise
    assert not any(real_F[latent] for latent in fooled)
    assert len(only_b) >= 3
    assert all(real_F[latent] for latent in only_b)


def test_batch_topk_has_no_such_artefact(fits) -> None:
    fitted, source, kinds_of = fits["weak batch_topk"]
    cosine_K, latent_K = matches(fitted.crosscoder, source)
    delta_F = delta_norm(raw_decoders(fitted.crosscoder))
    shared = [int(at) for at, c, kind in zip(latent_K, cosine_K, kinds_of, strict=True) if kind == "shared" and c > 0.9]
    assert len(shared) >= 20
    assert all(abs(delta_F[latent] - (1 + 0.75) / 2) < 0.01 for latent in shared)  # a holds them at .25 of b's strength


@dataclass(frozen=True)
class Changed:
    """A source whose activations (N, M, D) are changed before they are handed out."""

    of: Planted
    change: Callable[[Tensor], Tensor]
    models: tuple[str, ...] = ("a", "b")
    layer: int = 1

    @property
    def lengths(self) -> Sequence[int]:
        return self.of.lengths

    def read(self, documents: Sequence[int]) -> Tokens:
        tokens = self.of.read(documents)
        return replace(tokens, x_NMD=self.change(tokens.x_NMD.clone()))


def twice(x_NMD: Tensor) -> Tensor:
    return x_NMD[:, 1:].expand(-1, 2, -1).contiguous()


def test_a_model_beside_itself_has_features_of_neither(tmp_path: Path) -> None:
    source = Changed(planted()[0], twice, models=("a", "a"))
    crosscoder = fit_crosscoder(source, TOPK, settings(500), workplace(tmp_path)).crosscoder
    start = initial(TOPK, 2, 32, 0)
    assert not torch.allclose(start.decoders()[:, 0], start.decoders()[:, 1])
    live_F = firing(crosscoder, source.read(range(300))).live
    assert live_F.sum() >= 40
    for p in (1, 2):
        assert ((nrn(crosscoder.decoders(), p)[live_F] - 0.5).abs() < 0.02).float().mean() >= 0.99
    found = kinds(crosscoder.decoders(), live_F)
    assert not found.reference.any()
    assert not found.subject.any()


@pytest.mark.parametrize("sparsity", ["batch_topk", "l1"])
def test_every_logged_term_moves_a_gradient(sparsity: str) -> None:
    config = CrosscoderConfig(expansion=2, k=3, sparsity=sparsity, dead_after=100)
    objective = CrosscoderObjective(initial(config, 2, 32, 0), config)
    objective.silent_F[:10] = 101
    x_BW = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    terms = objective(x_BW)
    assert set(terms) == set(objective.terms) == {"reconstruction", "aux", *(["sparsity"] if sparsity == "l1" else [])}
    for term in terms.values():
        objective.zero_grad()
        term.backward(retain_graph=True)
        moved = [p for p in objective.parameters() if p.grad is not None and p.grad.abs().max() > 0]
        assert len(moved) >= 2


def test_the_auxiliary_term_reaches_the_dead_latents_and_no_other() -> None:
    config = CrosscoderConfig(expansion=2, k=3, dead_after=100)
    objective = CrosscoderObjective(initial(config, 2, 32, 0), config)
    objective.silent_F[:10] = 101
    objective(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))["aux"].backward()
    grad_F = objective.crosscoder.decoder_FW.grad.abs().sum(dim=1)
    assert (grad_F[:10] > 0).all()
    assert (grad_F[10:] == 0).all()


def test_a_schedule_that_outlasts_training_is_refused(tmp_path: Path) -> None:
    annealed = {"fit": {"updates": 10, "batch_size": 64}, "dictionary": {"anneal": 641}}
    with pytest.raises(ConfigError, match=r"dictionary\.anneal is 641 tokens, but training ends after 640"):
        CrosscodersConfig.parse(annealed, "r")
    warmed = {"sparsity": "l1", "l1_warmup": 640}
    assert CrosscodersConfig.parse(annealed | {"dictionary": warmed}, "r").dictionary.anneal == 200_000  # l1 has no k
    with pytest.raises(ConfigError, match="l1_warmup"):
        fit_crosscoder(planted()[0], CrosscoderConfig(sparsity="l1", l1_warmup=10**6), settings(1), workplace(tmp_path))


def test_k_is_annealed_by_tokens_and_the_threshold_follows() -> None:
    config = CrosscoderConfig(expansion=2, k=4, k_first=20, anneal=640)
    objective = CrosscoderObjective(initial(config, 2, 32, 0), config).train()
    x_BW = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    for _ in range(12):
        seen.append(objective.k())
        objective(x_BW)
    assert seen == [20, 18, 17, 15, 14, 12, 10, 9, 7, 6, 4, 4]
    assert float(objective.crosscoder.threshold) > 0
    assert int(objective.tokens) == 768


def test_the_squared_error_and_the_plain_one_are_worked_by_hand() -> None:
    x_BW = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    for squared, wanted in ((True, 25 / 2 / 2), (False, 5 / 2 / 2**0.5)):
        config = CrosscoderConfig(expansion=1, k=1, squared=squared, aux=0)
        objective = CrosscoderObjective(Crosscoder(2, 1, 1, 1), config)
        assert float(objective(x_BW)["reconstruction"].detach()) == pytest.approx(wanted)


def test_dedicated_latents_touch_their_own_model_alone(tmp_path: Path) -> None:
    source, _ = planted()
    config = TOPK.model_copy(update={"dedicated": 0.25, "anneal": 30 * 512})
    crosscoder = fit_crosscoder(source, config, settings(60), workplace(tmp_path)).crosscoder
    norm_FM = crosscoder.norms()
    assert (norm_FM[:32, 1] == 0).all() and (norm_FM[:32, 0] > 0).all()
    assert (norm_FM[32:64, 0] == 0).all() and (norm_FM[32:64, 1] > 0).all()
    assert (norm_FM[64:] > 0).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_run_taken_up_again_ends_with_the_same_bytes(precision: str, tmp_path: Path, monkeypatch) -> None:
    source, _ = planted()
    config = TOPK.model_copy(update={"anneal": 20 * 512, "dead_after": 2000})
    fit_config = settings(40, precision=precision, log_every=1)
    alone = fit_crosscoder(source, config, fit_config, workplace(tmp_path / "alone"))
    original, calls = Mixer.batch, {"left": 17}

    def fragile(self: Mixer, update: int) -> tuple[Tensor, Tensor]:
        calls["left"] -= 1
        if calls["left"] == 0:
            raise KeyboardInterrupt
        return original(self, update)

    monkeypatch.setattr(Mixer, "batch", fragile)
    at = workplace(tmp_path / "killed", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        fit_crosscoder(source, config, fit_config, at)
    again = fit_crosscoder(source, config, fit_config, at)
    for name, tensor in alone.crosscoder.state_dict().items():
        assert torch.equal(tensor, again.crosscoder.state_dict()[name]), name
    assert again.told == alone.told
    lines = (tmp_path / "alone" / "metrics.jsonl").read_text()
    assert (tmp_path / "killed" / "metrics.jsonl").read_text() == lines
    assert any(json.loads(line)["aux"] > 0 for line in lines.splitlines())


def test_a_dictionary_smaller_than_k_is_refused() -> None:
    with pytest.raises(UsageError, match="32 latents is smaller than k = 33"):
        initial(CrosscoderConfig(expansion=1, k=33), 2, 32, 0)


def test_activations_of_other_shape_are_refused() -> None:
    crosscoder = initial(CrosscoderConfig(expansion=1, k=3), 2, 32, 0)
    with pytest.raises(DataError, match=r"2 models of width 16 .* 2 models of width 32"):
        crosscoder.encode(torch.zeros(5, 2, 16))


def test_sinks_and_first_tokens_are_left_out() -> None:
    source, _ = planted()
    normal = calibrate(source, 0)
    tokens = source.read([3])
    tokens.x_NMD[5, 1] *= 100
    usable = normal.usable(tokens)
    assert not usable[0] and not usable[5]
    assert usable[1:5].all()


def test_a_source_counts_its_documents_once_however_many_there_are() -> None:
    asked = []

    class Counting(Planted):
        @property
        def lengths(self) -> Sequence[int]:
            asked.append(1)
            return super().lengths

    calibrate(Counting(planted()[0].direction_KMD), 0)
    assert len(asked) == 1


@dataclass(frozen=True)
class Stuck:
    """A source that hands out its first documents for ever, as the public buffer did."""

    of: Planted
    models: tuple[str, ...] = ("a", "b")
    layer: int = 1

    @property
    def lengths(self) -> Sequence[int]:
        return self.of.lengths

    def read(self, documents: Sequence[int]) -> Tokens:
        return self.of.read(range(len(documents)))


def test_a_source_that_stops_refreshing_is_an_error() -> None:
    source, _ = planted()
    for of, fails in ((source, False), (Stuck(source), True)):
        mixer = Mixer(of, calibrate(source, 0), 512, 0, pool_tokens=10_000)
        assert len(mixer.pools(0)) == 4
        try:
            for update in range(mixer.per_epoch):
                mixer.batch(update)
        except TrainingError as error:
            assert fails and "stopped refreshing" in str(error)
        else:
            assert not fails
            assert mixer.freshness.documents == set(range(2000))


def test_updates_are_a_pure_function_of_their_number_and_an_epoch_repeats_no_token() -> None:
    source, _ = planted()
    normal = calibrate(source, 0)
    first, second = (Mixer(source, normal, 512, 0, pool_tokens=10_000) for _ in range(2))
    forwards = [first.batch(update)[0] for update in range(first.per_epoch)]
    for update in (60, 3, 41):
        assert torch.equal(second.batch(update)[0], forwards[update])
    rows = torch.cat(forwards).round(decimals=3)
    assert len(rows.unique(dim=0)) > 0.98 * len(rows)  # what sinks leave short is filled up from the same pool


def test_a_pool_is_held_once() -> None:
    source, _ = planted(documents=100)
    mixer = Mixer(source, calibrate(source, 0), 512, 0)
    gc.collect()
    before = {id(thing) for thing in gc.get_objects()}
    mixer.batch(0)
    gc.collect()
    made = [thing for thing in gc.get_objects() if type(thing) is Tensor and id(thing) not in before]
    assert len({tensor.untyped_storage().data_ptr() for tensor in made if tensor.is_floating_point()}) == 1


def test_a_pool_is_let_go_when_its_dictionary_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, though the mixer and its caches hold each other: the next dictionary's pool is as large."""
    pools = []

    def spied(self: Mixer, documents: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        pool = held(self, documents)
        pools.append(weakref.ref(pool[0]))
        return pool

    held = Mixer._held
    monkeypatch.setattr(Mixer, "_held", spied)
    gc.disable()
    try:
        fit_crosscoder(planted()[0], TOPK, settings(300), workplace(tmp_path))
        assert [pool() for pool in pools] == [None] * len(pools) != []
    finally:
        gc.enable()


def test_half_a_pool_that_repeats_the_other_under_other_names_is_an_error() -> None:
    source, _ = planted(documents=100)

    def half(x_NMD: Tensor) -> Tensor:
        return torch.cat([x_NMD[: len(x_NMD) // 2]] * 2)

    mixer = Mixer(Changed(source, half), calibrate(source, 0), 512, 0)
    with pytest.raises(TrainingError, match="document 50 has the activations of a document with another text"):
        mixer.batch(0)


def test_two_documents_of_one_text_may_have_the_same_activations() -> None:
    source, _ = planted(documents=100)
    tokens, twice = source.read(range(50)), source.read(range(100))
    both = replace(twice, x_NMD=torch.cat([tokens.x_NMD] * 2), token_N=torch.cat([tokens.token_N] * 2))
    freshness = Freshness(source.lengths)
    freshness.note(tuple(range(100)), both)
    assert len(freshness.documents) == 100


def test_counters_count_the_tokens_that_sinks_leave(tmp_path: Path, monkeypatch) -> None:
    source, _ = planted(documents=100)

    def long(x_NMD: Tensor) -> Tensor:
        x_NMD[1::2] *= 100 * (x_NMD[1::2].norm(dim=2, keepdim=True) > 0)
        return x_NMD

    drawn: list[int] = []
    original = Mixer.batch

    def noted(self: Mixer, update: int) -> tuple[Tensor, Tensor]:
        x_BW, token_B = original(self, update)
        drawn.extend(token_B.tolist())
        return x_BW, token_B

    monkeypatch.setattr(Mixer, "batch", noted)
    monkeypatch.setattr("stillroom.crosscoder.fitting.calibrate", lambda _, seed: calibrate(source, seed))
    config, at_once = settings(1, epochs=1.5, batch_size=200), TOPK.model_copy(update={"anneal": 0})
    told = fit_crosscoder(Changed(source, long), at_once, config, workplace(tmp_path)).told
    assert told["tokens drawn"] == len(drawn) == 15 * 200  # of 100 × 20 tokens that are not first
    assert told["distinct tokens"] == len(set(drawn)) < 1100
    assert told["tokens used again"] == len(drawn) - len(set(drawn))
    assert all(token % LENGTH for token in drawn)  # no first one


def test_what_is_not_finite_in_one_model_is_not_said_of_both() -> None:
    source, _ = planted(documents=100)

    def broken(x_NMD: Tensor) -> Tensor:
        x_NMD[:, 1] = torch.nan
        return x_NMD

    with pytest.raises(DataError, match=r"^b: its activation of token 0 of document \d+ is not finite"):
        calibrate(Changed(source, broken), 0)
    with pytest.raises(DataError, match=r"^b: its activation"):
        Mixer(Changed(source, broken), calibrate(source, 0), 512, 0).batch(0)
