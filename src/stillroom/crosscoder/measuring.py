"""Findings of one pair of models: each number of its crosscoder beside the same number of its nulls.

Legend: F latents, K latents of a set.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillroom.crosscoder.causal import Abreast, Mode, drawn, logit_change, matched
from stillroom.crosscoder.data import Tokens
from stillroom.crosscoder.features import (
    DENSE,
    Firing,
    chosen,
    delta_norm,
    explained,
    firing,
    genuine,
    kinds,
    latent_scaling,
    nrn,
)
from stillroom.crosscoder.model import Crosscoder
from stillroom.evaluation import judge
from stillroom.records import Finding, Null, Prediction, Problem
from stillroom.stats import Interval, bootstrap_mean, wilson
from stillroom.students import Student
from stillroom.students.prompts import completions_ids

SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""The paper's shares of the most frequent latents of a category."""
TOLD = 0.2
"""The share by which accuracy is measured."""
LIFT = 1.5
"""How much more often than anywhere a latent fires at the tokens of a step that it is counted for."""


@dataclass(frozen=True)
class Address:
    """What all findings of one pair share."""

    subject: str
    reference: str
    layer: int

    def finding(self, metric: str, found: Interval, n: int, nulls: Sequence[Null] = (), position: str = "") -> Finding:
        return Finding(
            lens="crosscoder", subject=self.subject, reference=self.reference, layer=self.layer, n=n,
            module="residual stream", position=position, metric=metric, nulls=tuple(nulls), **found._asdict(),
        )  # fmt: skip


@dataclass(frozen=True)
class Described:
    """One crosscoder on tokens that it was not trained on."""

    crosscoder: Crosscoder
    fires: Firing
    nrn_F: Tensor
    delta_F: Tensor
    error_F: Tensor
    reconstruction_F: Tensor
    measures: dict[str, tuple[Interval, int]]
    categories: dict[str, int]
    """The tokens of each category, in the order of the rows of `fires.category_CF`."""

    def at(self, category: str) -> Tensor:
        """How often each latent (F) fires at the category's tokens."""
        return self.fires.category_CF[list(self.categories).index(category)]


def describe(crosscoder: Crosscoder, tokens: Tokens, categories: Mapping[str, Tensor] = {}) -> Described:
    """NRN, Δ_norm and ν of every latent, and what they come to."""
    fires = firing(crosscoder, tokens, categories)
    live_F, decoder_FMD = fires.live, crosscoder.decoders()
    variance_M, active = explained(crosscoder, tokens)
    scaling = latent_scaling(crosscoder, tokens)
    found, live, every = kinds(decoder_FMD, live_F), max(1, int(live_F.sum())), crosscoder.latents
    sure = int((found.subject & genuine(scaling)).sum())
    exact = {
        "explained variance, reference": (float(variance_M[0]), len(tokens)),
        "explained variance, subject": (float(variance_M[-1]), len(tokens)),
        "active latents a token": (active, len(tokens)),
    }
    counted = {
        "dead latents": (every - int(live_F.sum()), every),
        "dense latents": (int((fires.frequency > DENSE).sum()), every),
        "latents of the reference alone": (int(found.reference.sum()), live),
        "shared latents": (int(found.shared.sum()), live),
        "latents of the subject alone": (int(found.subject.sum()), live),
        "latents of the subject alone that latent scaling confirms": (sure, live),
    }
    means = {
        "mean NRN": nrn(decoder_FMD)[live_F],
        "mean NRN, 2-norm": nrn(decoder_FMD, 2)[live_F],
        "mean ν of the error": scaling.error_F[live_F],
        "mean ν of the reconstruction": scaling.reconstruction_F[live_F],
    }
    measures = {name: (Interval(value, value, value), n) for name, (value, n) in exact.items()}
    measures |= {name: (wilson(count, n), n) for name, (count, n) in counted.items()}
    for name, values in means.items():
        finite = values[values.isfinite()]
        if len(finite):
            measures[name] = (bootstrap_mean(finite.clamp(-1, 2).numpy()), len(finite))
    return Described(
        crosscoder,
        fires,
        nrn(decoder_FMD),
        delta_norm(decoder_FMD),
        scaling.error_F,
        scaling.reconstruction_F,
        measures,
        {name: int(mask_N.sum()) for name, mask_N in categories.items()},
    )


def beside(address: Address, real: Described, nulls: Mapping[str, Described]) -> Iterator[Finding]:
    """Every measure of the real crosscoder, with the same of each null."""
    for metric, (found, n) in real.measures.items():
        others = {name: null.measures[metric][0] for name, null in nulls.items() if metric in null.measures}
        told = [Null(name=name, **value._asdict()) for name, value in others.items()]
        yield address.finding(metric, found, n, told)


def category_latents(real: Described, category: str, share: float = TOLD) -> Tensor:
    """Latents found for a category: NRN above ½, among the most frequent `share` at its tokens, and there more than
    elsewhere by `LIFT`."""
    here_F = real.at(category)
    found_K = chosen(real.nrn_F, here_F, share)
    lift_K = (here_F[found_K] / max(1, real.categories[category])) / real.fires.frequency[found_K]
    return found_K[lift_K >= LIFT]


@dataclass(frozen=True)
class Exam:
    """Problems of a category, asked of the subject with latents taken out of it, and texts after which a token of the
    category comes next."""

    abreast: Abreast
    student: Student
    problems: Sequence[Problem]
    new_tokens: int
    cues: Sequence[tuple[list[int], list[int]]]
    """(tokens of a text, tokens of which one comes next)."""

    def right(self, latents_K: Tensor | None, mode: Mode = "ablate") -> Tensor:
        """Which answers (B) are right."""
        prompts = self.student.prompts([problem.question for problem in self.problems])
        answers = self.abreast.answers(prompts, self.new_tokens, self.student.stops, latents_K, mode)
        told = [
            Prediction(
                problem=problem.id,
                text=self.student.tokenizer.decode(ids, skip_special_tokens=True),
                tokens=len(ids),
                stopped=len(ids) < self.new_tokens,
            )
            for problem, ids in zip(self.problems, answers, strict=True)
        ]
        return torch.tensor([float(verdict.correct) for verdict in judge(self.problems, told)])

    def logits(self, latents_K: Tensor) -> Tensor:
        """Change (cues) of the mean logit of the tokens of which one comes next."""
        texts, triggers = [text for text, _ in self.cues], [wanted for _, wanted in self.cues]
        return logit_change(self.abreast, texts, triggers, latents_K)


def answer_cues(student: Student, problems: Sequence[Problem]) -> list[tuple[list[int], list[int]]]:
    """For each problem the text up to its answer, and the answer's first token."""
    told = [f"The answer is {problem.answer}." for problem in problems]
    whole = completions_ids(told, student.manner.style, student.tokenizer)
    before = completions_ids(["The answer is"], student.manner.style, student.tokenizer)[0]
    asked = student.prompts([problem.question for problem in problems])
    first = (
        next((i for i, (a, b) in enumerate(zip(before, whole[0], strict=False)) if a != b), len(before)) if whole else 0
    )
    return [([*prompt, *ids[:first]], [ids[first]]) for prompt, ids in zip(asked, whole, strict=True)]


def causes(address: Address, real: Described, exam: Exam, category: str) -> Iterator[Finding]:
    """Accuracy lost without a category's latents, beyond what their matched control loses; beside it what is lost to
    the control, to as many random latents, and to the reconstruction alone. Nothing where none was found for it."""
    set_K = category_latents(real, category)
    pool = (real.fires.live & (real.nrn_F <= 0.5)).nonzero().squeeze(1)
    if not len(set_K) or len(pool) < len(set_K) or not exam.problems:
        return
    none_K, control_K = set_K[:0], matched(set_K, pool, real.fires)
    whole, ablated, control = exam.right(None), exam.right(set_K), exam.right(control_K)
    random = exam.right(drawn(len(set_K), torch.arange(real.crosscoder.latents), 0))
    others = {
        "matched control": whole - control,
        "random latents": whole - random,
        "reconstruction only": whole - exam.right(none_K, "replace"),
    }
    nulls = [Null(name=name, **bootstrap_mean(lost.numpy())._asdict()) for name, lost in others.items()]
    n, where = len(whole), f"problems with {category}"
    metric = f"accuracy lost without the {len(set_K)} latents of {category}"
    yield address.finding(metric, bootstrap_mean((whole - ablated).numpy()), n, nulls, where)
    beyond = bootstrap_mean((control - ablated).numpy())
    yield address.finding(f"accuracy lost to {category} beyond its matched control", beyond, n, nulls, where)


def by_share(address: Address, real: Described, exam: Exam, category: str) -> Iterator[Finding]:
    """Change of the logit of what comes next without a category's most frequent latents with NRN above ½, by share."""
    pool = (real.fires.live & (real.nrn_F <= 0.5)).nonzero().squeeze(1)
    for share in SHARES:
        set_K = chosen(real.nrn_F, real.at(category), share)
        if not len(set_K) or len(pool) < len(set_K) or not exam.cues:
            continue
        lost = {
            "matched control": exam.logits(matched(set_K, pool, real.fires)),
            "random latents": exam.logits(drawn(len(set_K), torch.arange(real.crosscoder.latents), 0)),
        }
        nulls = [Null(name=name, **bootstrap_mean(values.numpy())._asdict()) for name, values in lost.items()]
        found = bootstrap_mean(exam.logits(set_K).numpy())
        yield address.finding(f"change of logit, top {100 * share:g} %", found, len(exam.cues), nulls, category)
