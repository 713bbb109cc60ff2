"""Divergence of the outputs: KL(subject ‖ reference) at every token of the spoken text, and where it is largest.

The text is the same for all students: the question, the worked steps and the answer. Means are over the tokens of one
class (see `reading`) of a problem, bootstrapped over problems. Which tokens' predictions differ most is chosen on
validation problems, by the text that stands before the prediction, and reported on test problems. Nulls: the reference
with itself, which is 0, and, where there is one, a student's re-seeded twin.

Legend: B rows, T tokens, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from stillroom.config import Config
from stillroom.evaluation import spaced
from stillroom.lenses.reading import CLASSES, Spoken, finite, padded, spoken, word
from stillroom.lenses.selection import CHOSEN
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.records import Finding, Null
from stillroom.stats import Interval, bootstrap_mean
from stillroom.students import Student

SELF = Null(name="self-diff", value=0.0, low=0.0, high=0.0)


class KlConfig(Config):
    name: Literal["kl"] = "kl"
    batch_size: int = Field(32, ge=1)
    problems: int = Field(200, ge=1)
    """Of each split, evenly spaced."""
    largest: int = Field(5, ge=1)
    """How many of the words before which the outputs differ most are told."""
    rare: int = Field(5, ge=1)
    """A word that stands in fewer validation places is not chosen."""


def divergence(subject_TV: Tensor, reference_TV: Tensor) -> Tensor:
    """KL(subject ‖ reference) of logits in nats, at each position (…): Σ p_s (log p_s − log p_r), in float32."""
    own, other = (functional.log_softmax(logits.float(), dim=-1) for logits in (subject_TV, reference_TV))
    return functional.kl_div(other, own, reduction="none", log_target=True).sum(-1).clamp(min=0)


@torch.inference_mode()
def divergences(subject: Student, reference: Student, texts: Sequence[Spoken], batch_size: int) -> Iterator[Tensor]:
    """For each text the divergence at each of its tokens (T,), over the vocabulary that both have."""
    rows = min(_rows(subject), _rows(reference))
    for start in range(0, len(texts), batch_size):
        part = texts[start : start + batch_size]
        ids_BT = padded(reference, [text.ids for text in part])
        logits = (
            student.model(input_ids=ids_BT, use_cache=False).logits[..., :rows] for student in (subject, reference)
        )
        told_BT = finite(divergence(*logits), "the divergence of the outputs").cpu()
        yield from (row[: len(text.ids)] for row, text in zip(told_BT, part, strict=True))


def _rows(student: Student) -> int:
    """Tokens that one student alone was given are no part of the comparison."""
    return int(student.model.get_input_embeddings().get_parameter("weight").shape[0])


def by_class(texts: Sequence[Spoken], values: Sequence[Tensor]) -> dict[str, list[float]]:
    """A mean for each problem that has tokens of the class; `all` has every token."""
    found: dict[str, list[float]] = defaultdict(list)
    for text, row in zip(texts, values, strict=True):
        found["all"].append(float(row.mean()))
        for name in CLASSES:
            places = [i for i, kind in enumerate(text.classes) if kind == name]
            if places:
                found[name].append(float(row[places].mean()))
    return found


def by_word(student: Student, texts: Sequence[Spoken], values: Sequence[Tensor]) -> dict[str, list[float]]:
    """The divergences of all predictions that are made after one token, by the class and text of that token."""
    found: dict[str, list[float]] = defaultdict(list)
    for text, row in zip(texts, values, strict=True):
        for token, kind, value in zip(text.ids, text.classes, row.tolist(), strict=True):
            found[f"{kind}, after {word(student, token)!r}"].append(value)
    return found


def look(config: KlConfig, subjects: Subjects) -> list[Finding]:
    """Divergences of every two students by class of tokens, and the words and places where they are largest."""
    splits = {name: spaced(subjects.problems[name], config.problems) for name in ("validation", "test")}
    findings: list[Finding] = []
    base = subjects.students[BASE]
    texts = {split: [spoken(base, problem) for problem in problems] for split, problems in splits.items()}

    def measured(subject: str, reference: str, split: str) -> list[Tensor]:
        who = subjects.students[subject], subjects.students[reference]
        return list(divergences(*who, texts[split], config.batch_size))

    twins = {
        f"twin of {old}": by_class(texts["test"], measured(new, old, "test")) for new, old in subjects.twins.items()
    }
    for reference, subject in subjects.pairs():
        test = measured(subject, reference, "test")
        for place, values in by_class(texts["test"], test).items():
            nulls = [Null(name=name, **bootstrap_mean(held[place])._asdict()) for name, held in twins.items()]
            findings.append(_finding(subject, reference, place, "divergence (nats)", values, (SELF, *nulls)))
        seen = by_word(base, texts["validation"], measured(subject, reference, "validation"))
        findings += _largest(config, subject, reference, seen, by_word(base, texts["test"], test))
        findings += _shown(base, subject, reference, texts["test"], test, config.largest)
    return findings


def _largest(
    config: KlConfig,
    subject: str,
    reference: str,
    seen: Mapping[str, Sequence[float]],
    asked: Mapping[str, Sequence[float]],
) -> Iterator[Finding]:
    common = [place for place, values in seen.items() if len(values) >= config.rare and place in asked]
    everywhere = bootstrap_mean([value for values in asked.values() for value in values], resamples=200)
    null = Null(name="mean over all tokens", **everywhere._asdict())
    for place in sorted(common, key=lambda place: -float(np.mean(seen[place])))[: config.largest]:
        yield _finding(subject, reference, place, f"divergence (nats){CHOSEN}", asked[place], (null, SELF))


def _shown(
    student: Student, subject: str, reference: str, texts: Sequence[Spoken], values: Sequence[Tensor], count: int
) -> Iterator[Finding]:
    """The single predictions that differ most, in their text: an illustration, each of one place."""
    places = sorted(((float(v), row, i) for row, vs in enumerate(values) for i, v in enumerate(vs)), reverse=True)
    mean = bootstrap_mean([float(row.mean()) for row in values], resamples=200)
    null = Null(name="mean over all tokens", **mean._asdict())
    for value, row, i in places[:count]:
        before = word(student, *texts[row].ids[max(0, i - 11) : i + 1])
        following = word(student, *texts[row].ids[i + 1 : i + 2])
        place = f"{before} ▸ {following}"
        yield _finding(subject, reference, place, "largest divergence (nats)", [value], (null, SELF))


def _finding(
    subject: str, reference: str, place: str, metric: str, values: Sequence[float], nulls: tuple[Null, ...]
) -> Finding:
    found = bootstrap_mean(values) if len(values) > 1 else Interval(values[0], values[0], values[0])
    return Finding(
        lens="kl", subject=subject, reference=reference, layer=None, module="output", position=place, metric=metric,
        n=len(values), nulls=nulls, **found._asdict(),
    )  # fmt: skip
