"""Crosscoders: one dictionary for two models, to see which features distillation makes, keeps and drops.

    model, objective, sparse    the dictionary and what it learns from
    data, harvested, reading    paired activations of the same tokens, made on the fly or from disk
    fitting                     training through the one loop
    features, geometry, words   what a latent is, and how functions lie in space
    steps, triggers             which tokens tell a step of a synthetic task, or turn a text
    causal, exam, steering      what taking latents away does to answers, and what pushing them does
    nulls, measuring            the same numbers where there is nothing to find
    interchange                 the published layout, in and out

This file is the stage: two students in, a dictionary, a table of its latents and findings out.
"""

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from stillroom.activations import blocks
from stillroom.config import Config
from stillroom.crosscoder import interchange
from stillroom.crosscoder.causal import Abreast
from stillroom.crosscoder.data import Live, Source, Tokens
from stillroom.crosscoder.exam import Exam, answer_cues, by_share, category_latents, causes, found_for
from stillroom.crosscoder.fitting import Fitted, fit_crosscoder
from stillroom.crosscoder.harvested import harvested
from stillroom.crosscoder.measuring import Address, Described, beside, describe
from stillroom.crosscoder.model import CrosscoderConfig, initial
from stillroom.crosscoder.nulls import Itself, stability
from stillroom.crosscoder.reading import answers, geometry, source
from stillroom.crosscoder.steering import SteeringConfig, steered
from stillroom.crosscoder.steps import masks, needs, operations, told_at
from stillroom.crosscoder.tables import write_contexts, write_latents
from stillroom.crosscoder.triggers import cues, marked, spelled
from stillroom.devices import use
from stillroom.errors import UsageError
from stillroom.files import read_lines, write_json, write_lines
from stillroom.records import Finding, Null, Problem
from stillroom.stats import bootstrap_mean
from stillroom.store import Workplace
from stillroom.students import Student, load
from stillroom.training import FitConfig, processes

VERSION = 5
ITSELF, TWIN, UNTRAINED = "itself", "re-seeded twin", "untrained dictionaries"
HELD_OUT = 1000
"""Test problems, at most, on which a dictionary is described."""


class CrosscodersConfig(Config):
    """Which pairs of a recipe's people get a crosscoder, and how it is made. Where a recipe has a twin of the subject,
    it is a null beside the subject itself."""

    pairs: tuple[tuple[str, str], ...] = (("base", "distilled"),)
    """(reference, subject), which must read the same tokens."""
    layer: int | None = Field(None, ge=0)
    """Of the residual stream, 0 the embeddings; half of the depth where it is not given."""
    documents: int = Field(6000, ge=10)
    """Training problems, with their answers, whose activations are learned from."""
    dictionary: CrosscoderConfig = CrosscoderConfig(
        expansion=4, k=24, k_first=96, anneal=200_000, decoder_norm=0.5, dead_after=20_000
    )
    """For a model of width 100 or so, whose activations vary in some 30 directions; docs/crosscoders.md has the sizes
    that were tried."""
    fit: FitConfig = FitConfig(updates=600, batch_size=1024, learning_rate=2e-3)
    seeds: int = Field(1, ge=1)
    """Dictionaries of the same pair that differ by their seed; stability is told across them."""
    exam: int = Field(200, ge=0)
    """Test problems for each operation that are answered with latents taken out."""
    new_tokens: int = Field(8, ge=1)
    """Tokens of such an answer."""
    own_tokens: int = Field(0, ge=0)
    """Read what the subject itself says to each question, up to so many tokens, in place of the right answer alone;
    words with which a text turns are then categories of their own."""
    steering: SteeringConfig | None = None
    """Push the latents found for each category, beside random directions."""
    harvested: bool = False
    """Keep the training activations on disk while the stage runs: large models are then read once for all epochs and
    dictionaries."""

    @model_validator(mode="after")
    def _comes_to_its_end(self) -> Self:
        tokens = self.fit.updates * self.fit.batch_size
        if self.fit.epochs is None and (problem := self.dictionary.outlasting(tokens)):
            raise ValueError(problem)
        return self


class StageConfig(Config):
    reference: str
    subject: str
    suffix: str = ""
    """Ends both names in the findings: `@1` where a recipe has several seeds."""
    twin: bool = False
    settings: CrosscodersConfig


def make_crosscoder(config: StageConfig, at: Workplace) -> None:
    """Stage `crosscoder`: a dictionary in `crosscoder/`, its latents in `latents.parquet` and `contexts.json`,
    `parallelogram.json`, `counts.json` and `findings.jsonl`. A killed run goes on with the dictionary that it was at.

    Raises `DataError` where the two read different tokens, `UsageError` for a run of several processes.
    """
    if processes.count() > 1:
        raise UsageError(f"{at.name}: a crosscoder is trained by one process: run this stage without torchrun")
    device, settings = str(use(at.device, config.settings.fit.threads)), config.settings
    names = {"reference": config.reference, "subject": config.subject} | ({"twin": TWIN} if config.twin else {})
    people = {name: load(at.parents[role], device).plain() for role, name in names.items()}
    pair = {name: people[name] for name in (config.reference, config.subject)}
    subject = pair[config.subject]
    train, test = (read_lines(at.parents["problems"] / f"{split}.jsonl", Problem) for split in ("train", "test"))
    drawn = random.Random(settings.fit.seed).sample(train, min(settings.documents, len(train)))
    held_out = random.Random(1).sample(test, min(HELD_OUT, len(test)))
    layer = len(blocks(subject.model)) // 2 if settings.layer is None else settings.layer
    learned = _sources(config, people, drawn, layer, at.partial if settings.harvested else None)
    fits = {name: fitted(settings, of, at, name or "pair", 0) for name, of in learned.items()}
    others = [fitted(settings, learned[""], at, f"seed {seed}", seed) for seed in range(1, settings.seeds)]
    looked = _sources(config, people, held_out, layer)
    told = {name: usable(fits[name], of.read(range(len(held_out)))) for name, of in looked.items()}
    live = looked[""]
    assert isinstance(live, Live)
    words = spelled(subject.tokenizer) if settings.own_tokens else {}
    turns = [marked(words, ids, len(subject.prompt(p.question))) for p, ids in zip(held_out, live.ids, strict=True)]
    steps = [told_at(subject, p, ids) for p, ids in zip(held_out, live.ids, strict=True)]
    both = [[{*a, b} for a, b in zip(*rows, strict=True)] for rows in zip(steps, turns, strict=True)]
    real = describe(fits[""].crosscoder, told[""], masks(both, told[""]))
    nulls = {name: describe(fits[name].crosscoder, told[name], masks(both, told[name])) for name in fits if name}
    address = Address(config.subject + config.suffix, config.reference + config.suffix, layer)
    findings = list(beside(address, real, nulls))
    abreast = Abreast(real.crosscoder.to(device), [person.model for person in pair.values()], layer)
    for sign in operations(held_out) if settings.exam else ():
        asked = [problem for problem in test if needs(problem, sign)]
        asked = random.Random(2).sample(asked, min(settings.exam, len(asked)))
        exam = Exam(abreast, subject, asked, settings.new_tokens, answer_cues(subject, asked))
        findings += caused(address, real, nulls, exam, sign, settings.steering)
    for category in words if settings.exam else ():
        asked = [p for p, marks in zip(held_out, turns, strict=True) if category in marks][: settings.exam]
        texts = cues(words, category, live.ids, turns, settings.exam)
        exam = Exam(abreast, subject, asked, settings.own_tokens, texts)
        findings += caused(address, real, nulls, exam, category, settings.steering)
    real.crosscoder.cpu()
    curves, lying = geometry(address, pair, layer)
    stable_F = stability(real.crosscoder, [other.crosscoder for other in others], torch.arange(real.crosscoder.latents))
    if others:
        findings.append(stable(address, settings, real, stable_F))
    interchange.save(real.crosscoder, at.out / "crosscoder", {"models": list(pair), "layer": layer})
    write_latents(at.out, real, nulls, stable_F.tolist())
    write_contexts(at.out / "contexts.json", real, told[""], subject, live.ids)
    write_json(at.out / "parallelogram.json", curves)
    write_json(at.out / "counts.json", {name or "pair": fit.told for name, fit in fits.items()})
    write_lines(at.out / "findings.jsonl", [*findings, *lying])


def stable(address: Address, settings: CrosscodersConfig, real: Described, stable_F: Tensor) -> Finding:
    """Mean best cosine of live latents with those of other seeds, beside that with as many untrained dictionaries."""
    own, live_F = real.crosscoder, real.fires.live
    seeds = range(settings.fit.seed + 1, settings.fit.seed + settings.seeds)
    untrained = [initial(settings.dictionary, own.models, own.width, seed) for seed in seeds]
    chance = bootstrap_mean(stability(own, untrained, live_F.nonzero().squeeze(1)).numpy())
    found, null = bootstrap_mean(stable_F[live_F].numpy()), Null(name=UNTRAINED, **chance._asdict())
    return address.finding("mean cosine to other dictionary seeds", found, int(live_F.sum()), [null])


def _sources(
    config: StageConfig,
    people: Mapping[str, Student],
    problems: Sequence[Problem],
    layer: int,
    kept: Path | None = None,
) -> dict[str, Source]:
    """The pair, and its nulls by name, on the same documents; from disk where there is a folder to keep them in."""
    said = answers(people[config.subject], problems, config.settings.own_tokens)
    pairs = {"": (config.reference, config.subject)} | ({TWIN: (config.subject, TWIN)} if config.twin else {})
    found: dict[str, Source] = {}
    for name, (one, other) in pairs.items():
        live = source({one: people[one], other: people[other]}, problems, said, layer)
        found[name] = harvested(live, kept / f"activations {name or 'pair'}") if kept else live
        if not name:  # what is not on disk is read once more, of the subject alone
            found[ITSELF] = Itself(found[name] if kept else source({other: people[other]}, problems, said, layer))
    return found


def caused(
    address: Address,
    real: Described,
    nulls: Mapping[str, Described],
    exam: Exam,
    category: str,
    steering: SteeringConfig | None,
) -> Iterator[Finding]:
    """What a category's latents do: how many were found, and what they do when they are taken out, and pushed."""
    if category not in real.categories:
        return
    yield found_for(address, real, nulls, category)
    yield from causes(address, real, exam, category)
    yield from by_share(address, real, exam, category)
    if steering is not None:
        yield from steered(address, real, exam, category, category_latents(real, category), steering)


def fitted(settings: CrosscodersConfig, of: Source, at: Workplace, name: str, seed: int) -> Fitted:
    """One dictionary, with a folder of its own for its checkpoints; its log stays as `metrics-NAME.jsonl`."""
    own = at.partial / name.replace(" ", "-")
    own.mkdir(exist_ok=True)
    config = settings.fit.model_copy(update={"seed": settings.fit.seed + seed})
    found = fit_crosscoder(of, settings.dictionary, config, replace(at, out=own, name=f"{at.name}: {name}"))
    shutil.copy(own / "metrics.jsonl", at.out / f"metrics-{own.name}.jsonl")
    return found


def usable(fit: Fitted, tokens: Tokens) -> Tokens:
    return tokens.at(fit.normal.usable(tokens).nonzero().squeeze(1))
