"""The crosscoders of a sweep's sizes side by side: NRN, latents of one model alone, parallelogram losses, and beside
them what distillation gained. It reads findings and verdicts, never a model.

Baek & Tegmark (arXiv 2503.03730) suggest that larger distilled models are more structured; three sizes show a direction
at most, so that every number keeps its interval and its nulls.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from stillroom.config import Config
from stillroom.files import read_lines, write_lines
from stillroom.records import Finding, Null, Verdict
from stillroom.stats import bootstrap_mean
from stillroom.store import Workplace
from stillroom.tasks import TEST

VERSION = 2
TOLD = (
    "mean NRN", "latents of the subject alone", "latents of the subject alone that latent scaling confirms",
    "explained variance, subject", "dead latents",
)  # fmt: skip
"""What is told of every size; of the parallelograms those in context, in all dimensions and in 20 components."""
KEPT = ("all dimensions", "20 components")
GAINED = "accuracy gained"


class Pair(Config):
    """One crosscoder of one cell, whose findings are the parent `role`."""

    role: str
    cell: str
    reference: str
    subject: str


class SizesConfig(Config):
    pairs: tuple[Pair, ...]


def make_sizes(config: SizesConfig, at: Workplace) -> None:
    """Stage `sizes`: `findings.jsonl`, every pair's chosen findings with the cell in both names, and what accuracy the
    subject has beyond the reference, paired by test problem."""
    rows: list[Finding] = []
    for pair in config.pairs:
        found = read_lines(at.parents[pair.role] / "findings.jsonl", Finding)
        names = {"subject": f"{pair.subject} [{pair.cell}]", "reference": f"{pair.reference} [{pair.cell}]"}
        rows += [finding.model_copy(update=names) for finding in chosen(found)]
        rows.append(gained(pair, names, at))
    write_lines(at.out / "findings.jsonl", rows)


def chosen(findings: Sequence[Finding]) -> Iterator[Finding]:
    for finding in findings:
        shape = finding.metric.startswith("parallelogram") and finding.metric.endswith(KEPT)
        if finding.metric in TOLD or (shape and finding.position == "in context"):
            yield finding


def gained(pair: Pair, names: dict[str, str], at: Workplace) -> Finding:
    """The subject's accuracy on test problems minus the reference's, paired by problem, with its bootstrap interval."""
    scores = at.parents[f"scores {pair.cell}"]
    right = {
        name: np.array([float(v.correct) for v in read_lines(scores / name / f"{TEST}.jsonl", Verdict)])
        for name in (pair.reference, pair.subject)
    }
    beyond = right[pair.subject] - right[pair.reference]
    return Finding(
        lens="crosscoder", **names, layer=None, module="", position=TEST, metric=GAINED, n=len(beyond),
        nulls=(Null(name="equal accuracy", value=0.0, low=0.0, high=0.0),), **bootstrap_mean(beyond)._asdict(),
    )  # fmt: skip
