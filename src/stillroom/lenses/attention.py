"""Attention: where each head looks, how sharply, and how far two students' heads differ on the same text.

Read at the token before the answer, on the question alone and with the steps written out, and there also at each sign
`=`, after which a step's value follows. The mass on a class of positions stands beside what even attention to all that
is seen would put there, and beside a randomly initialised twin's; the difference of two students beside that of a
student and its re-seeded twin.

Legend: L layers, H heads, Q query positions, T key positions, S positions that two texts share, N problems.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import log
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from stillroom import stats
from stillroom.activations import attending
from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.lenses.measures import TWIN, adjusted, null, paired
from stillroom.lenses.patterns import pattern, typical
from stillroom.lenses.selection import CHOSEN
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.lenses.texts import ANSWER, END, Text, batch, spelled, texts
from stillroom.lenses.twins import random_twin
from stillroom.records import Finding, Problem
from stillroom.students import Student

CLASSES = ("operands", "operators", "steps", "pauses", "thoughts")
RESULTS = "step results"
JSD = "Jensen–Shannon divergence in bits"
Floats = NDArray[np.float64]


class AttentionConfig(Config):
    name: Literal["attention"] = "attention"
    problems: int = Field(24, ge=2)
    """How many of each split, evenly spaced over it."""
    batch_size: int = Field(16, ge=1)
    seed: int = 0


def mass(weights_LHQT: Tensor, at: Sequence[int]) -> Tensor:
    """The attention that falls on these positions: (L, H), the mean over queries."""
    return weights_LHQT[..., list(at)].sum(-1).mean(-1)


def entropy(weights_LHQT: Tensor) -> Tensor:
    """Shannon entropy in bits, (L, H): 0 for one position alone, log2 T for an even spread."""
    entropy_LHQ: Tensor = torch.special.entr(weights_LHQT).sum(-1)
    return entropy_LHQ.mean(-1) / log(2)


def divergence(one_LHQS: Tensor, two_LHQS: Tensor) -> Tensor:
    """Jensen–Shannon divergence in bits (Lin 1991), (L, H): 0 for the same distributions, 1 for disjoint ones."""
    middle = (one_LHQS + two_LHQS) / 2
    entropies = (torch.special.entr(weights).sum(-1) for weights in (one_LHQS, two_LHQS))
    jsd_LHQ: Tensor = (torch.special.entr(middle).sum(-1) - sum(entropies) / 2) / log(2)
    return jsd_LHQ.clamp(0, 1).mean(-1)


class Read(NamedTuple):
    """One text and, from the name of each class of queries, what every head attends to from there."""

    text: Text
    weights: Mapping[str, Tensor]
    """(L, H, Q, T) in float64."""
    at: Mapping[str, list[int]]
    """Where the queries stand; each sees all up to itself."""


def queries(student: Student, text: Text) -> dict[str, list[int]]:
    """The positions that are read: the last one, and in written steps the signs that values follow."""
    found = {ANSWER: [len(text.ids) - 1]}
    if text.spans.get("steps"):
        pieces: Any = student.tokenizer.convert_ids_to_tokens(text.ids)
        found = {f"{ANSWER} after steps": found[ANSWER]}
        found[RESULTS] = [at for at in text.spans["steps"] if "=" in pieces[at]]
    return found


@torch.inference_mode()
def read(student: Student, rows: Sequence[Text], batch_size: int) -> list[Read]:
    """Every text's attention. Raises `DataError` where a model does not tell its weights, or where they are none."""
    found = []
    with attending(student.model):
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            told: Any = student.model(**batch(student, part), output_attentions=True, use_cache=False, logits_to_keep=1)
            if not told.attentions or told.attentions[0] is None:
                raise DataError(f"{type(student.model).__name__} does not tell its attention weights")
            weights_LBHTT = torch.stack(told.attentions).cpu().double()
            for i, text in enumerate(part):
                asked = queries(student, text)
                weights = {query: weights_LBHTT[:, i, :, at, : len(text.ids)] for query, at in asked.items()}
                found.append(Read(text, weights, asked))
    for one in found:
        for weights_LHQT in one.weights.values():
            if not torch.allclose(weights_LHQT.sum(-1), torch.ones(()).double(), atol=1e-2):
                raise DataError("a student's attention weights do not sum to one: its activations hold NaN or infinity")
    return found


def shared(one: Read, query: str) -> Tensor:
    """Attention to the positions that every student's text of the problem has, and as one more, to all others."""
    weights_LHQT, text = one.weights[query], one.text
    end = text.spans[END][0] + 1
    own = weights_LHQT[..., end : text.words].sum(-1, keepdim=True)
    return torch.cat([weights_LHQT[..., :end], weights_LHQT[..., text.words :], own], -1)


def look(config: AttentionConfig, subjects: Subjects) -> list[Finding]:
    """Masses and entropies of every student but twins, how far heads moved, and one pattern of each that moved most."""
    first = next(iter(subjects.students.values()))
    asked = {
        name: [p for p in _sample(subjects.problems[name], config.problems) if spelled(first, p)]
        for name in ("validation", "test")
    }
    if not all(asked.values()):
        return []
    kinds = _kinds([problem for rows in asked.values() for problem in rows])
    views: dict[str, dict[str, list[list[Read]]]] = {}
    findings: list[Finding] = []
    for name, student in subjects.students.items():
        written = {split: [texts(student, rows, worked) for worked in kinds] for split, rows in asked.items()}
        views[name] = {
            split: [read(student, rows, config.batch_size) for rows in told] for split, told in written.items()
        }
        if name not in subjects.twins:
            twin = random_twin(student, config.seed)
            random = [read(twin, rows, config.batch_size) for rows in written["test"]]
            for own, lost in zip(views[name]["test"], random, strict=True):
                findings += _of_student(name, own, lost)
    for reference, subject in subjects.pairs():
        findings += _of_pair(reference, subject, views, subjects.twins)
        if reference == BASE:
            both = views[subject]["test"][0], views[reference]["test"][0]
            findings += _drawn(findings, subjects.students[subject], subject, *both)
    return findings


def _drawn(
    found: Sequence[Finding], student: Student, subject: str, own: Sequence[Read], base: Sequence[Read]
) -> Iterator[Finding]:
    """The pattern of the head that moved most from the base, on a typical problem."""
    chosen = next(f for f in found if (f.subject, f.position, f.metric) == (subject, ANSWER, JSD + CHOSEN))
    assert chosen.layer is not None, "a head has a layer"
    at = chosen.layer - 1, int(chosen.module.removeprefix("head ")) - 1
    moved = [float(divergence(shared(x, ANSWER), shared(y, ANSWER))[at]) for x, y in zip(own, base, strict=True)]
    both = (rows[typical(moved)] for rows in (own, base))
    texts, weights = zip(*((one.text, one.weights[ANSWER][(*at, 0)].tolist()) for one in both), strict=True)
    yield from pattern(chosen, student, texts, weights)


def _sample(problems: Sequence[Problem], count: int) -> list[Problem]:
    count = min(count, len(problems))
    return [problems[i * len(problems) // count] for i in range(count)]


def _kinds(problems: Sequence[Problem]) -> tuple[bool, ...]:
    """Without steps and, where every problem has some, with them."""
    return (False, True) if all(problem.steps for problem in problems) else (False,)


def _of_student(name: str, own: Sequence[Read], lost: Sequence[Read]) -> Iterator[Finding]:
    """Masses, beside even attention, and entropies, of every head."""
    for query in own[0].weights:
        masses: list[tuple[Finding, float]] = []
        for kind in (k for k in CLASSES if all(one.text.spans.get(k) for one in own)):
            found, random = (
                np.stack([mass(one.weights[query], one.text.spans[kind]).numpy() for one in rows])
                for rows in (own, lost)
            )
            even = [_even(one, query, one.text.spans[kind]) for one in own]
            for layer, head in np.ndindex(found.shape[1:]):
                nulls = {"even attention": even, TWIN: random[:, layer, head]}
                row = _finding(name, "", (layer, head), query, f"mass on {kind}", found[:, layer, head], nulls)
                masses.append((row, paired(found[:, layer, head], even)))
        yield from adjusted(masses)
        found, random = (np.stack([entropy(one.weights[query]).numpy() for one in rows]) for rows in (own, lost))
        for layer, head in np.ndindex(found.shape[1:]):
            nulls = {"even attention": [_most(one, query) for one in own], TWIN: random[:, layer, head]}
            yield _finding(name, "", (layer, head), query, "entropy in bits", found[:, layer, head], nulls)


def _even(one: Read, query: str, at: Sequence[int]) -> float:
    """The share of these positions in what each query sees, which is all up to itself."""
    return float(np.mean([sum(key <= q for key in at) / (q + 1) for q in one.at[query]]))


def _most(one: Read, query: str) -> float:
    return float(np.mean([np.log2(q + 1) for q in one.at[query]]))


def _of_pair(
    reference: str,
    subject: str,
    views: Mapping[str, Mapping[str, Sequence[Sequence[Read]]]],
    twins: Mapping[str, str],
) -> Iterator[Finding]:
    """How far every head moved, and the head that moved most on validation problems."""
    for kind, first in enumerate(views[reference]["test"]):
        for query in first[0].weights:

            def far(a: str, b: str, split: str, turn: int = 0, kind: int = kind, query: str = query) -> Floats:
                rows = zip(views[a][split][kind], views[b][split][kind], strict=True)
                both = ((shared(x, query), shared(y, query).roll(turn, dims=1)) for x, y in rows)
                return np.stack([divergence(x, y).numpy() for x, y in both])

            found_NLH = far(reference, subject, "test")
            controls = {f"twin of {old}": far(old, new, "test") for new, old in twins.items()}
            controls["the next head of the layer"] = far(reference, subject, "test", turn=1)
            controls["self-diff"] = far(reference, reference, "test")  # last: p is against the first, and this is 0
            rows: list[tuple[Finding, float]] = []
            for layer, head in np.ndindex(found_NLH.shape[1:]):
                nulls = {who: values[:, layer, head] for who, values in controls.items()}
                row = _finding(subject, reference, (layer, head), query, JSD, found_NLH[:, layer, head], nulls)
                rows.append((row, paired(found_NLH[:, layer, head], next(iter(nulls.values())))))
            yield from adjusted(rows)
            moved_LH = far(reference, subject, "validation").mean(0)
            chosen, p = rows[int(moved_LH.argmax())]
            yield chosen.model_copy(update={"metric": JSD + CHOSEN, "p": p})


def _finding(
    subject: str,
    reference: str,
    at: tuple[int, ...],
    query: str,
    metric: str,
    values: Floats | Sequence[float],
    nulls: Mapping[str, Any],
) -> Finding:
    return Finding(
        lens="attention",
        subject=subject,
        reference=reference or ("" if subject == BASE else BASE),
        layer=at[0] + 1,
        module=f"head {at[1] + 1}",
        position=query,
        metric=metric,
        n=len(values),
        nulls=tuple(null(who, stats.bootstrap_mean(told)) for who, told in nulls.items()),
        **stats.bootstrap_mean(values)._asdict(),
    )
