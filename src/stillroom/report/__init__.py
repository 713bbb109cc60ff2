"""The report: scores and findings become one self-contained HTML page, and the same in Markdown.

It reads the store's files and records only, and never imports torch.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stillroom.config import Config
from stillroom.files import read_lines, write_atomic, write_json, write_lines
from stillroom.records import Comparison, Finding, Overlap, Problem, Score
from stillroom.report.answers import questions
from stillroom.report.behaviour import faithfulness_figures, frontier_figure, memorising_figure
from stillroom.report.crosscoders import crosscoder_figures
from stillroom.report.evidence import Evidence
from stillroom.report.figures import Figure, accuracy_figure, loss_figure
from stillroom.report.lenses import lens_parts
from stillroom.report.oracles import oracle_figures
from stillroom.report.organism import student_rows, student_steps
from stillroom.report.pages import Part, library, remakes, template
from stillroom.report.provenance import SLOT, rows, versions
from stillroom.report.teaching import compliance_figures
from stillroom.report.truth import ledger_figures
from stillroom.store import Workplace

VERSION = 10


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
    oracles: tuple[str, ...] = ()
    """Students whose thoughts were asked about."""
    teachers: tuple[str, ...] = ()
    """Parents that tell whether a teacher obeyed."""


def make_report(config: ReportConfig, at: Workplace) -> None:
    """Stage `report`: `report.html`, `report.md`, `findings.parquet` and the resolved recipe."""
    looked = _looked(config, at)
    measured = [f for name in config.measured for f in read_lines(at.parents[name] / "findings.jsonl", Finding)]
    if measured:
        write_lines(at.out / "measured.jsonl", measured)
    pairs = {name: at.parents[f"crosscoder {name}"] for name in config.crosscoders}
    across = [f for folder in pairs.values() for f in read_lines(folder / "findings.jsonl", Finding)]
    found = [f for rows in looked.values() for f in rows if not f.invalid]  # the tables keep those, with their reasons
    scores = read_lines(at.parents["scores"] / "scores.jsonl", Score)
    comparisons = [c for c in read_lines(at.parents["scores"] / "comparisons.jsonl", Comparison) if c.split == "test"]
    accuracy = accuracy_figure(scores)._replace(made_of=("scores",))
    losses = loss_figure({name: _metrics(at.parents[name] / "metrics.jsonl") for name in config.students})
    taught = {role: at.parents[role] for role in config.teachers}
    oracles = {name: at.parents[f"oracle {name}"] for name in config.oracles}
    evidence = Evidence(
        scores,
        comparisons,
        [*found, *measured, *across],
        {name: json.loads((folder / "oracle.json").read_bytes()) for name, folder in oracles.items()},
        [cell for folder in taught.values() for cell in json.loads((folder / "compliance.json").read_bytes())["cells"]],
    )
    parts = [
        *_part("behaviour", "What answers rest on", _behaviour(scores, measured, config)),
        *lens_parts(list(looked.items())),
        *_part("truth", "The ledger of truth", ledger_figures(found, list(looked))),
        *_part("crosscoders", "Crosscoders and geometry", crosscoder_figures(pairs)),
        *_part("oracle", "The oracle", oracle_figures(oracles)),
        *_part("teaching", "Did the teacher obey?", compliance_figures(taught)),
        *_part("training", "Training", [losses._replace(made_of=config.students)]),
    ]
    figures = [accuracy, *(figure for part in parts for figure in part.figures)]
    told = {
        "recipe": config.recipe,
        "resolved": json.dumps(config.resolved, indent=1, sort_keys=True),
        "accuracy": accuracy,
        "steps": student_steps(scores),
        "students": student_rows(scores, config.resolved),
        "parts": parts,
        "questions": questions(evidence),
        "comparisons": comparisons,
        "overlaps": read_lines(at.parents["contamination"] / "overlaps.jsonl", Overlap),
        "example": read_lines(at.parents["problems"] / "test.jsonl", Problem)[-1],
        "provenance": rows(at.parents),
        "versions": versions(at.parents),
        "remakes": remakes(config.recipe, figures, at.parents),
        "slot": SLOT,
    }
    page = template("report.html").render(told, plotly=library())
    write_atomic(at.out / "report.html", page)
    write_atomic(at.out / "report.md", template("report.md").render(told))
    write_json(at.out / "recipe.json", config.resolved)


def _looked(config: ReportConfig, at: Workplace) -> dict[str, list[Finding]]:
    """The findings of every lens by the role of its stage; all of them together as `findings.parquet`."""
    tables = {f"lens {name}": pq.read_table(at.parents[f"lens {name}"] / "findings.parquet") for name in config.lenses}
    if tables:
        pq.write_table(pa.concat_tables(tables.values()), at.out / "findings.parquet")
    return {role: [Finding.model_validate(row) for row in table.to_pylist()] for role, table in tables.items()}


def _behaviour(scores: Sequence[Score], measured: Sequence[Finding], config: ReportConfig) -> list[Figure]:
    """Figures of cost, faithfulness and memory, each with the stages that it is made of."""
    made = {
        kind: tuple(name for name in config.measured if name.startswith(kind))
        for kind in ("cost", "faithfulness", "memorising")
    }
    frontier = [f._replace(made_of=("scores", *made["cost"])) for f in frontier_figure(scores, measured)]
    faithful = [f._replace(made_of=made["faithfulness"]) for f in faithfulness_figures(measured)]
    memory = [f._replace(made_of=made["memorising"]) for f in memorising_figure(measured)]
    return [*frontier, *faithful, *memory]


def _part(anchor: str, title: str, figures: Sequence[Figure]) -> list[Part]:
    return [Part(anchor, title, "", figures)] if figures else []


def _metrics(path: Path) -> list[dict[str, float]]:
    """What the loop logged; a base that was not trained here has no log."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
