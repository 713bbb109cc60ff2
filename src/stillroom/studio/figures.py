"""The report's figures for a run, made from the store when they are looked at, also where there is no report."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from stillroom.files import read_lines
from stillroom.records import Finding, Score
from stillroom.report.behaviour import faithfulness_figures, frontier_figure, memorising_figure
from stillroom.report.crosscoders import crosscoder_figures
from stillroom.report.figures import Figure, accuracy_figure, layer_figure, lens_figure, loss_figure
from stillroom.store import Manifest, Store
from stillroom.studio.library import MODELS, lineage

MEASURED = ("faithfulness", "cost", "memorising")
Folders = Mapping[str, Path]
"""The stages of a run by name."""


def figures(store: Store, run: str) -> dict[str, Figure]:
    """By title. Raises `UsageError` for a run that is gone."""
    made = lineage(store, run)

    def of(*kinds: str) -> dict[str, Path]:
        return {_name(m): store.folder(m.stage, m.key) for m in made if m.stage in kinds}

    scores = [s for folder in of("scores").values() for s in read_lines(folder / "scores.jsonl", Score)]
    measured = [f for folder in of(*MEASURED).values() for f in read_lines(folder / "findings.jsonl", Finding)]
    looked = [f for folder in of("lens").values() for f in _findings(folder / "findings.parquet")]
    drawn: list[tuple[Sequence[object], Callable[[], Sequence[Figure]]]] = [
        (scores, lambda: [accuracy_figure(scores)]),
        (scores, lambda: frontier_figure(scores, measured)),
        (measured, lambda: faithfulness_figures(measured)),
        (measured, lambda: memorising_figure(measured)),
        (looked, lambda: [*lens_figure(looked), *layer_figure(looked)]),
        (list(of("crosscoder")), lambda: crosscoder_figures(of("crosscoder"))),
        (list(of(*MODELS)), lambda: [loss_figure(_losses(of(*MODELS)))]),
    ]
    return {figure.title: figure for data, draw in drawn if data for figure in draw()}


def _name(manifest: Manifest) -> str:
    """As the report calls it: a crosscoder by its pair."""
    return manifest.name.removeprefix(f"{manifest.stage} ")


def _findings(path: Path) -> list[Finding]:
    """Those that are measurements; the table keeps the others, with their reasons."""
    found = [Finding.model_validate(row) for row in pq.read_table(path).to_pylist()]
    return [finding for finding in found if not finding.invalid]


def _losses(models: Folders) -> dict[str, list[dict[str, float]]]:
    logs = {name: folder / "metrics.jsonl" for name, folder in models.items()}
    return {
        name: [json.loads(row) for row in log.read_text().splitlines()] for name, log in logs.items() if log.is_file()
    }
