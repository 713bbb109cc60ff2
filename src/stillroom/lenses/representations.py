"""Representations: how far two students' residual streams are apart on the same tokens, and along which directions.

By layer and class of tokens of the spoken text (see `reading`; `thoughts` where both students think): norm and cosine
of the difference, and minibatch CKA with the unbiased estimator, which students of unequal width have too. Of all
tokens and of the answer's also the principal directions of the difference with the variance that each explains. Text is
read batch by batch; of every problem a few numbers are kept, and no vector. Null: the same with the rows of one student
moved by one token, so that vectors of different tokens are compared; for the variance, differences without a direction
(isotropic ones).

*Steering* adds the answer tokens' mean difference, or their first principal direction at one standard deviation, to the
base's residual stream and asks what share of the divergence of its answers from the student's is gone. The layer is
chosen on validation problems and told on test problems; null: a random direction of the same length.

Legend: L layers (0 is the embedding), D width, N rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from stillroom.activations import steered
from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.evaluation import spaced
from stillroom.lenses.kl import divergences
from stillroom.lenses.reading import Spoken, read_spoken, spoken
from stillroom.lenses.selection import CHOSEN, Floats, choose, in_stream, invalid
from stillroom.lenses.silent import read_silent
from stillroom.lenses.similarity import Pairing, Spread, bootstrapped_cka, isotropic_share
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.records import Finding, Null, Problem
from stillroom.stats import Interval, bootstrap_means
from stillroom.students import Student

ALL = "all"
SPREAD = (ALL, "answer")
"""The classes of which directions are told: each keeps D² numbers a layer."""


class RepresentationsConfig(Config):
    name: Literal["representations"] = "representations"
    batch_size: int = Field(32, ge=1)
    problems: int = Field(200, ge=1)
    """Of each split, evenly spaced."""
    rows: int = Field(256, ge=4)
    """Of a batch's tokens of one class, evenly spaced, so many at most serve for CKA."""
    steered: int = Field(60, ge=1)
    """Of each split, so many problems' answers are asked again at every layer."""
    directions: int = Field(3, ge=1)
    seed: int = 0


def compare(
    first: Student, second: Student, texts: Sequence[Spoken], config: RepresentationsConfig
) -> dict[tuple[int, str], Pairing]:
    """What is kept of two students over all texts, by layer and class."""
    kept: dict[tuple[int, str], Pairing] = {}
    batches = (read_spoken(student, texts, config.batch_size) for student in (first, second))
    for (rows, one), (_, other) in zip(*batches, strict=True):
        places = [(i, t, kind) for i, row in enumerate(rows) for t, kind in enumerate(texts[row].classes)]
        for kind in dict.fromkeys([ALL, *(kind for _, _, kind in places)]):
            at = torch.tensor([(i, t) for i, t, k in places if kind in (ALL, k)])
            problem_N = at[:, 0] + rows[0]
            for layer, (a_BTD, b_BTE) in enumerate(zip(one, other, strict=False)):
                a_ND, b_NE = (stream[at[:, 0], at[:, 1]].cpu() for stream in (a_BTD, b_BTE))
                pairing = kept.setdefault((layer, kind), Pairing(spread=Spread() if kind in SPREAD else None))
                pairing.add(a_ND, b_NE, problem_N, config.rows)
    return kept


def compare_thoughts(
    first: Student, second: Student, problems: Sequence[Problem], config: RepresentationsConfig
) -> dict[tuple[int, str], Pairing]:
    """The same of the places where both think, where they think equally often."""
    counts = [student.manner.thoughts.count if student.manner.thoughts else 0 for student in (first, second)]
    if not counts[0] or counts[0] != counts[1]:
        return {}
    held = [read_silent(student, problems, config.batch_size) for student in (first, second)]
    at = [i for i, place in enumerate(held[0].places) if place.startswith("thought")]
    kept: dict[tuple[int, str], Pairing] = {}
    for layer, (a_PBD, b_PBE) in enumerate(zip(*(one.stream_LPBD for one in held), strict=False)):
        kept[layer, "thoughts"] = Pairing()
        for start in range(0, len(problems), config.batch_size):
            problem_B = torch.arange(start, min(start + config.batch_size, len(problems)))
            a_ND, b_NE = (stream[at][:, problem_B].flatten(0, 1) for stream in (a_PBD, b_PBE))
            kept[layer, "thoughts"].add(a_ND, b_NE, problem_B.repeat(len(at)), config.rows)
    return kept


def look(config: RepresentationsConfig, subjects: Subjects) -> list[Finding]:
    """Every two students by layer and class; steering for those that are the base's own width."""
    splits = {name: spaced(subjects.problems[name], config.problems) for name in ("validation", "test")}
    findings: list[Finding] = []
    for reference, subject in subjects.pairs():
        first, second = subjects.students[reference], subjects.students[subject]
        texts = {split: [spoken(first, problem) for problem in problems] for split, problems in splits.items()}
        kept = compare(first, second, texts["test"], config) | compare_thoughts(first, second, splits["test"], config)
        for (layer, kind), pairing in sorted(kept.items()):
            findings += told(reference, subject, layer, kind, pairing, config)
        if reference == BASE and _width(first) == _width(second):
            findings += steer(reference, subject, first, second, texts, config)
    return findings


def told(
    reference: str, subject: str, layer: int, kind: str, pairing: Pairing, config: RepresentationsConfig
) -> Iterator[Finding]:
    """The findings of one layer and class."""
    if pairing.apart:
        means_P4 = pairing.means()
        for place, metric in enumerate(("relative norm of the difference", "cosine")):
            address = in_stream("representations", subject, layer, kind, metric, reference)
            both_P2 = means_P4[:, [place, place + 2]]  # matched and mismatched
            if not np.isfinite(both_P2).all():
                yield invalid("a vector of the reference is zero", **address, n=len(means_P4))
                continue
            value, null = (Interval(*column) for column in bootstrap_means(both_P2, config.seed).T.tolist())
            yield Finding(**address, n=len(means_P4), nulls=(_other(null),), **value._asdict())
    address = in_stream("representations", subject, layer, kind, "CKA", reference)
    batches = np.array(pairing.sums)
    if not len(batches) or not np.isfinite(bootstrapped_cka(batches, config.seed, 1).value):
        reason = "vectors do not vary" if len(batches) else "no batch has four tokens of this class"
        yield invalid(reason, **address, n=max(1, len(batches)))
    elif len(batches) == 1:
        yield invalid("one batch alone, whose interval would be a point", **address, n=1)
    else:
        null = bootstrapped_cka(np.array(pairing.mismatched), config.seed)
        found = bootstrapped_cka(batches, config.seed)._asdict()
        yield Finding(**address, n=len(batches), nulls=(_other(null),), **found)
    if pairing.spread is not None and pairing.spread.count:
        yield from explained(reference, subject, layer, kind, pairing.spread, config.directions)


def explained(reference: str, subject: str, layer: int, kind: str, spread: Spread, count: int) -> Iterator[Finding]:
    """The share of the difference's variance along its leading directions; the interval is ± 1.96 √(2/n) of an
    eigenvalue (Anderson 1963)."""
    try:
        variance_D, _ = spread.directions()
    except DataError as error:
        yield invalid(
            str(error),
            **in_stream("representations", subject, layer, kind, "explained variance", reference),
            n=spread.count,
        )
        return
    total = float(variance_D.sum())
    even = isotropic_share(spread.count, len(variance_D))
    null = Null(name="no direction", value=even, low=even, high=even)
    wide = 1.96 * np.sqrt(2 / spread.count)
    for i, variance in enumerate(variance_D[:count].tolist()):
        share = variance / total if total else 0.0
        address = in_stream(
            "representations", subject, layer, kind, f"explained variance of direction {i + 1}", reference
        )
        low, high = share * max(0.0, 1 - wide), min(1.0, share * (1 + wide))
        yield Finding(**address, value=share, n=spread.count, low=low, high=high, nulls=(null,))


def steer(
    reference: str,
    subject: str,
    first: Student,
    second: Student,
    texts: dict[str, list[Spoken]],
    config: RepresentationsConfig,
) -> Iterator[Finding]:
    """How much nearer the base's answers come to the student's when it is moved along the difference."""
    learned = compare(first, second, texts["validation"], config)
    texts = {split: spaced(rows, config.steered) for split, rows in texts.items()}
    layers = sorted({layer for layer, _ in learned if layer})
    moves: dict[str, list[Tensor]] = {"mean difference": [], "principal direction 1": []}
    for layer in layers:
        spread = learned[layer, "answer"].spread
        assert spread is not None, "the answer is among the classes with directions"
        moves["mean difference"].append(spread.mean)
        try:
            variance_D, rows_DD = spread.directions()
        except DataError:
            continue  # `explained` says so for the same class
        moves["principal direction 1"].append(variance_D[0].sqrt() * rows_DD[0] * torch.sign(rows_DD[0] @ spread.mean))
    plain = {split: _answers(first, second, rows, config, None) for split, rows in texts.items()}
    draw = torch.Generator().manual_seed(config.seed)
    for name, directions in moves.items():
        if len(directions) < len(layers):
            continue
        by_layer = [
            1
            - _answers(first, second, texts["validation"], config, (layer, move)).mean()
            / max(1e-12, plain["validation"].mean())
            for layer, move in zip(layers, directions, strict=True)
        ]
        best = choose(np.array(by_layer))
        move = directions[best]
        noise = torch.randn(move.shape, generator=draw, dtype=move.dtype)
        rows = [plain["test"]]
        for added in (move, noise * (move.norm() / noise.norm())):
            rows.append(_answers(first, second, texts["test"], config, (layers[best], added)))
        address = in_stream(
            "representations", subject, layers[best], "answer", f"divergence removed by the {name}{CHOSEN}", reference
        )
        yield from removed(np.stack(rows), address, config.seed)


def removed(rows_3P: Floats, address: dict[str, Any], seed: int) -> Iterator[Finding]:
    """1 − steered / plain, of means over problems that are drawn together; the third row is the null's."""
    n = rows_3P.shape[1]
    if not rows_3P[0].sum():
        yield invalid("the answers do not differ, so there is nothing to remove", **address, n=n)
        return
    counts_RN = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), 1000)
    sums_3R = rows_3P @ counts_RN.T
    pairs = []
    for row in (1, 2):
        value = float(1 - rows_3P[row].sum() / rows_3P[0].sum())
        told_R = 1 - sums_3R[row] / np.where(sums_3R[0] > 0, sums_3R[0], np.inf)
        low, high = np.quantile(told_R, [0.025, 0.975])
        pairs.append(Interval(value, min(float(low), value), max(float(high), value)))
    null = Null(name="random direction of the same length", **pairs[1]._asdict())
    yield Finding(**address, n=n, nulls=(null,), **pairs[0]._asdict())


def _answers(
    first: Student,
    second: Student,
    texts: Sequence[Spoken],
    config: RepresentationsConfig,
    move: tuple[int, Tensor] | None,
) -> Floats:
    """(P,): the mean divergence over each problem's answer tokens, the first student steered where `move` says so."""
    with torch.no_grad():
        if move is None:
            rows = list(divergences(second, first, texts, config.batch_size))
        else:
            with steered(first.model, *move):
                rows = list(divergences(second, first, texts, config.batch_size))
    at = [[i for i, kind in enumerate(text.classes) if kind == "answer"] for text in texts]
    return np.array([float(row[places].mean()) for row, places in zip(rows, at, strict=True)])


def _width(student: Student) -> int:
    return int(student.model.get_input_embeddings().get_parameter("weight").shape[1])


def _other(null: Interval) -> Null:
    return Null(name="another token's vector", **null._asdict())
