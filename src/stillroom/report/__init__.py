"""The report: scores and findings become one self-contained HTML page, and the findings one Parquet table.

It reads the store's files and records only, and never imports torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline
import pyarrow as pa
import pyarrow.parquet as pq

from stillroom.config import Config
from stillroom.files import read_lines, write_atomic, write_json, write_lines
from stillroom.records import Comparison, Finding, Overlap, Problem, Score
from stillroom.report.answers import Evidence, questions
from stillroom.report.attention import pattern_figures
from stillroom.report.behaviour import faithfulness_figures, frontier_figure, memorising_figure
from stillroom.report.crosscoders import crosscoder_figures
from stillroom.report.figures import accuracy_figure, layer_figure, lens_figure, loss_figure
from stillroom.report.ledger import COLUMNS, ledger
from stillroom.store import MANIFEST, Manifest, Workplace

VERSION = 3


class ReportConfig(Config):
    recipe: str
    """The recipe's name or path."""
    resolved: dict[str, Any]
    """The recipe with all defaults and overrides."""
    students: tuple[str, ...]
    lenses: tuple[str, ...]
    measured: tuple[str, ...] = ()
    """Parents whose findings stand in `findings.jsonl`."""
    crosscoders: tuple[str, ...] = ()
    """Pairs of models that have one."""


def make_report(config: ReportConfig, at: Workplace) -> None:
    """Stage `report`: `report.html`, `findings.parquet` and the resolved recipe."""
    tables = [pq.read_table(at.parents[f"lens {name}"] / "findings.parquet") for name in config.lenses]
    findings: list[Finding] = []
    if tables:
        table = pa.concat_tables(tables)
        pq.write_table(table, at.out / "findings.parquet")
        rows = [Finding.model_validate(row) for row in table.to_pylist()]
        findings = [finding for finding in rows if not finding.invalid]  # the table keeps those, with their reasons
    measured = [f for name in config.measured for f in read_lines(at.parents[name] / "findings.jsonl", Finding)]
    if measured:
        write_lines(at.out / "measured.jsonl", measured)
        findings += measured
    pairs = {name: at.parents[f"crosscoder {name}"] for name in config.crosscoders}
    for folder in pairs.values():
        findings += read_lines(folder / "findings.jsonl", Finding)
    scores = read_lines(at.parents["scores"] / "scores.jsonl", Score)
    comparisons = read_lines(at.parents["scores"] / "comparisons.jsonl", Comparison)
    evidence = Evidence(scores, comparisons, findings)
    example = read_lines(at.parents["problems"] / "test.jsonl", Problem)[-1]
    losses = {name: _metrics(at.parents[name] / "metrics.jsonl") for name in config.students}
    figures = [
        accuracy_figure(scores),
        *frontier_figure(scores, findings),
        *faithfulness_figures(findings),
        *memorising_figure(findings),
        *lens_figure(findings),
        *pattern_figures(findings),
        *layer_figure(findings),
        *crosscoder_figures(pairs),
        loss_figure(losses),
    ]
    page = template("report.html").render(
        recipe=config.recipe,
        resolved=json.dumps(config.resolved, indent=1, sort_keys=True),
        figures=figures,
        questions=questions(evidence),
        ledger={"columns": COLUMNS, "rows": ledger(findings)},
        comparisons=[c for c in comparisons if c.split == "test"],
        overlaps=read_lines(at.parents["contamination"] / "overlaps.jsonl", Overlap),
        example=example,
        provenance=_provenance(at.parents),
        plotly=plotly.offline.get_plotlyjs(),
    )
    write_atomic(at.out / "report.html", page)
    write_json(at.out / "recipe.json", config.resolved)


def _metrics(path: Path) -> list[dict[str, float]]:
    """What the loop logged; a base that was not trained here has no log."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _provenance(parents: Mapping[str, Path]) -> list[dict[str, str]]:
    """What each parent is and what it holds. Times and hosts are left out: `stillroom show` has them."""
    rows = []
    for folder in parents.values():
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        seed = manifest.config.get("fit", {}).get("seed", manifest.config.get("seed", ""))
        rows.append(
            {
                "name": manifest.name,
                "key": f"{manifest.stage}/{manifest.key}",
                "seed": str(seed),
                "content": manifest.content,
            }
        )
    return rows


def template(name: str) -> jinja2.Template:
    """One of this room's pages, every value in it escaped."""
    loader = jinja2.PackageLoader("stillroom.report", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["figure"] = lambda value: f"{value:.3g}"
    environment.filters["share"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["points"] = lambda value: f"{100 * value:+.2f}"
    return environment.get_template(name)
