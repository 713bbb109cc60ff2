"""The report's figures for a run, made from the store when they are looked at, also where there is no report."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stillroom.errors import StoreError
from stillroom.files import read_lines
from stillroom.records import Finding, Score
from stillroom.report.behaviour import faithfulness_figures, frontier_figure, memorising_figure
from stillroom.report.crosscoders import crosscoder_figures
from stillroom.report.figures import Figure, accuracy_figure, loss_figure
from stillroom.report.lenses import lens_parts
from stillroom.report.oracles import oracle_figures
from stillroom.report.teaching import compliance_figures
from stillroom.report.truth import ledger_figures
from stillroom.store import Manifest, Store
from stillroom.studio.holdings import MODELS, lineage

MEASURED = ("faithfulness", "cost", "memorising")
FOUND = "findings.jsonl"
Folders = Mapping[str, Path]
"""The stages of a run by name."""


def figures(store: Store, run: str) -> dict[str, Figure]:
    """By title. Raises `UsageError` for a run that is gone."""
    made = lineage(store, run)

    def of(*kinds: str) -> dict[str, Path]:
        return {_name(m): store.folder(m.stage, m.key) for m in made if m.stage in kinds}

    scores = [s for folder in of("scores").values() for s in read_lines(folder / "scores.jsonl", Score)]
    measured = [f for kind in MEASURED for folder in of(kind).values() for f in read_lines(folder / FOUND, Finding)]
    looked = {name: _findings(folder / "findings.parquet") for name, folder in of("lens").items()}
    drawn: list[tuple[Sequence[object], Callable[[], Iterable[Figure]]]] = [
        (scores, lambda: [accuracy_figure(scores)]),
        (scores, lambda: frontier_figure(scores, measured)),
        (measured, lambda: faithfulness_figures(measured)),
        (measured, lambda: memorising_figure(measured)),
        (list(looked), lambda: _lenses(looked)),
        (list(looked), lambda: ledger_figures([f for rows in looked.values() for f in rows if not f.invalid], ())),
        (list(of("crosscoder")), lambda: crosscoder_figures(of("crosscoder"))),
        (list(of("oracle")), lambda: oracle_figures(of("oracle"))),
        (list(of("compliance")), lambda: compliance_figures(of("compliance"))),
        (list(of(*MODELS)), lambda: [loss_figure(_losses(of(*MODELS)))]),
    ]
    return {figure.title: figure for data, draw in drawn if data for figure in draw()}


def _lenses(looked: Mapping[str, list[Finding]]) -> Iterator[Figure]:
    """Those of every lens, each title with its lens, since two may read the same."""
    for part in lens_parts([(f"lens {name}", findings) for name, findings in looked.items()]):
        for figure in part.figures:
            yield figure._replace(title=f"{part.title}: {figure.title}")


def _name(manifest: Manifest) -> str:
    """As the report calls it: a crosscoder by its pair."""
    return manifest.name.removeprefix(f"{manifest.stage} ")


def _findings(path: Path) -> list[Finding]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: not a whole table ({error}); run its recipe again, which makes it anew") from None
    return [Finding.model_validate(row) for row in table.to_pylist()]


def _losses(models: Folders) -> dict[str, list[dict[str, float]]]:
    logs = {name: folder / "metrics.jsonl" for name, folder in models.items()}
    return {
        name: [json.loads(row) for row in log.read_text().splitlines()] for name, log in logs.items() if log.is_file()
    }
