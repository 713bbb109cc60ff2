"""Lenses: what changed inside. A lens reads models and problems and returns findings, each with its null.

A lens is a config and a function `look(config, subjects) -> findings`. To add one, write both in a file and add a line
to `LENSES` (see docs/extending.md). The mathematics of a lens is a pure function of tensors, tested by its laws.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from stillroom.config import Config
from stillroom.devices import use
from stillroom.files import read_lines, stream_atomic
from stillroom.lenses import (
    ablation,
    attention,
    cross_model,
    grafting,
    kl,
    logit_lens,
    over_training,
    patching,
    probes,
    representations,
    tracing,
    tuned_lens,
    weights,
)
from stillroom.lenses.gathering import gathered, same_shapes, same_tokens
from stillroom.lenses.subjects import Subjects
from stillroom.progress import say
from stillroom.records import Finding, Problem
from stillroom.store import Workplace
from stillroom.students import Student, load


class Lens(NamedTuple):
    config: type[Config]
    look: Callable[[Any, Subjects], list[Finding]]
    needs: frozenset[str] = frozenset()
    """What two models must have alike for it, of the keys of `ALIKE`."""
    version: int = 6
    """Goes up with every change to what it finds, so that stages of the same configuration run again."""


ALIKE: dict[str, Callable[[Student, Student], bool]] = {"tokens": same_tokens, "shapes": same_shapes}
"""What two models may have alike: the tokens that they read, the shapes of their weights."""


LENSES: dict[str, Lens] = {
    "weights": Lens(weights.WeightsConfig, weights.look, frozenset({"shapes"})),
    "logit_lens": Lens(logit_lens.LogitLensConfig, logit_lens.look, version=8),
    "tuned_lens": Lens(tuned_lens.TunedLensConfig, tuned_lens.look, version=8),
    "probes": Lens(probes.ProbesConfig, probes.look, version=7),
    "representations": Lens(
        representations.RepresentationsConfig, representations.look, frozenset({"tokens"}), version=7
    ),
    "kl": Lens(kl.KlConfig, kl.look, frozenset({"tokens"})),
    "attention": Lens(attention.AttentionConfig, attention.look, frozenset({"tokens"}), version=7),
    "patching": Lens(patching.PatchingConfig, patching.look),
    "tracing": Lens(tracing.TracingConfig, tracing.look),
    "cross_model": Lens(cross_model.CrossModelConfig, cross_model.look, frozenset({"tokens", "shapes"})),
    "ablation": Lens(ablation.AblationConfig, ablation.look),
    "grafting": Lens(grafting.GraftingConfig, grafting.look, frozenset({"shapes"})),
}
LENSES["over_training"] = Lens(
    over_training.OverTrainingConfig,
    partial(over_training.look, LENSES),
    version=sum(lens.version for lens in LENSES.values()),  # it looks through any of them
)


class LensConfig(Config):
    lens: dict[str, Any]
    """The lens's own settings, its name among them."""
    students: dict[str, str]
    """From the role of each parent to the student's name; `base` is the un-distilled reference."""
    twins: dict[str, str] = {}
    """From a student that differs from another by its seed alone to that other's name."""
    suffix: str = ""
    """Ends the names of subject and reference in the findings: `@1` where a recipe has several seeds."""
    threads: int = 2


def make_findings(lens: Lens, settings: Config, config: LensConfig, at: Workplace) -> None:
    """Stage `lens`: the findings of one lens on one seed's students, as `findings.parquet`."""
    device = str(use(at.device, config.threads))
    problems = {path.stem: read_lines(path, Problem) for path in at.parents["problems"].glob("*.jsonl")}
    loaded = {name: load(at.parents[role], device) for role, name in config.students.items()}
    folders = {name: at.parents[role] for role, name in config.students.items()}
    students, corrections = gathered(loaded)
    with threadpool_limits(1, "blas"):  # its threads and torch's wait for one another; and sums depend on their number
        found = lens.look(settings, Subjects(students, config.twins, problems, corrections, folders))
    if not found:
        say(f"  {at.name}: nothing to measure on these students and problems; the report leaves its questions open")
    write_findings(at.out / "findings.parquet", [signed(finding, config.suffix) for finding in found])


def signed(finding: Finding, suffix: str) -> Finding:
    """The finding with the seed's mark on the names of its subject and its reference."""
    reference = finding.reference and finding.reference + suffix
    return finding.model_copy(update={"subject": finding.subject + suffix, "reference": reference})


def write_findings(path: Path, findings: list[Finding]) -> None:
    """A Parquet table, one row a finding; it appears whole or not at all."""
    table = pa.Table.from_pylist([finding.model_dump(mode="json") for finding in findings], SCHEMA)
    with stream_atomic(path) as file:
        pq.write_table(table, file)


NULL = pa.struct([("name", pa.string()), ("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64())])
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("lens", "subject", "reference")),
        ("layer", pa.int32()),
        *((name, pa.string()) for name in ("module", "position", "metric")),
        ("value", pa.float64()),
        ("n", pa.int64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("nulls", pa.list_(NULL)),
        ("p", pa.float64()),
        ("adjusted", pa.float64()),
        ("invalid", pa.string()),
    ]
)
