"""Figures of the oracle: what readers of the thoughts know that could not be had without reading them."""

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go

from stillroom.report.figures import COLOURS, Figure, finished

READERS = ("injection", "text")
CONTROL, LENS = "best control", "best lens"
LOOKS = {"injection": (0, "circle"), "text": (1, "square"), CONTROL: (6, "x-thin-open"), LENS: (2, "diamond-open")}
KINDS = ("balanced", "accuracy")
EXAMPLES = 2
"""Questions of each strategy that are shown with all their answers."""


class Measured(NamedTuple):
    value: float
    low: float
    high: float


def oracle_figures(folders: Mapping[str, Path]) -> list[Figure]:
    """For each student that thinks: how well its readers answer, the founding measures, and some answers in full."""
    figures: list[Figure] = []
    for name, folder in folders.items():
        told = json.loads((folder / "oracle.json").read_bytes())
        own = [_scores(name, told), _founding(name, told), _taught(name, told), _answers(name, folder)]
        figures += [figure._replace(made_of=(f"oracle {name}",)) for figure in own if figure.rows]
    return figures


def _scores(name: str, told: Mapping[str, Any]) -> Figure:
    """Balanced accuracy of both readers by strategy, beside their best control and the best plain lens."""
    scores, claims = told["scores"], told["claims"]
    plot = go.Figure()
    for who, (colour, symbol) in LOOKS.items():
        points = []
        for strategy, by in scores.items():
            source = claims[strategy][READERS[0]][who] if who in (CONTROL, LENS) else who
            if source in by:
                points.append((strategy, Measured(**by[source]["balanced"])))
        plot.add_scatter(
            x=[m.value for _, m in points], y=[strategy for strategy, _ in points], name=who, mode="markers",
            error_x={
                "type": "data", "symmetric": False, "array": [max(0.0, m.high - m.value) for _, m in points],
                "arrayminus": [max(0.0, m.value - m.low) for _, m in points], "width": 3,
            },
            marker={"symbol": symbol, "size": 10, "color": COLOURS[colour], "line": {"width": 2}},
            offsetgroup=who, orientation="h",
        )  # fmt: skip
    plot.update_layout(scattermode="group", scattergap=0.3)
    plot.update_xaxes(title="balanced accuracy on test questions", range=[-0.02, 1.02], tickformat=".0%")
    plot.update_yaxes(automargin=True, autorange="reversed")
    rows = [
        (
            strategy, who, "yes" if claims[strategy].get(who, {}).get("established") else "",
            *(score[kind][part] for kind in KINDS for part in Measured._fields), score["n"],
        )
        for strategy, by in scores.items()
        for who, score in by.items()
    ]  # fmt: skip
    established = [f"{s} ({who})" for s, by in claims.items() for who, claim in by.items() if claim["established"]]
    return finished(
        f"oracle-{name}",
        f"Oracle: what readers know of {name}'s thoughts",
        "Filled: readers that are given the thoughts as vectors (injection) or as the words nearest to them (text), "
        "asked "
        "about problems that neither they nor the student was taught on. Null: their best control, which has no "
        "thoughts of this problem to read (the commonest answer, the question or the output alone, another problem's "
        "thoughts, an untrained reader). Open diamonds: the best plain lens on the same thoughts. A reader's claim is "
        "established where its interval lies above those of all controls. Established here: "
        + (", ".join(established) or "none")
        + ".",
        plot,
        ("question", "who", "established", *(f"{kind} {part}" for kind in KINDS for part in Measured._fields), "n"),
        rows,
        height=140 + 38 * len(scores),
    )


def _founding(name: str, told: Mapping[str, Any]) -> Figure:
    """The founding study's measures as it defined them, a trivial answer there, and the same question here."""
    rows = []
    for measure, found in told["founding"].items():
        for reader in READERS:
            there, here = ((found[side] or {}).get(reader) for side in ("there", "here"))
            rows.append(
                (
                    measure, reader, there and there["accuracy"]["value"],
                    found["trivial"]["value"], found["trivial"]["best guess"],
                    here and here["balanced"]["value"],
                )
            )  # fmt: skip
    return Figure(
        f"oracle-founding-{name}",
        f"Oracle: the founding measures, asked of {name}",
        "Accuracy by the founding study's own definition, beside what an answer that reads nothing gets by it; and the "
        "balanced accuracy of the same question as it is asked here. Null: the trivial answer; where the measure does "
        "not exceed it, the measure says nothing of the reader.",
        "",
        ("measure", "reader", "as there", "trivial answer there", "which is", "as here (balanced)"),
        rows,
    )


def _taught(name: str, told: Mapping[str, Any]) -> Figure:
    rows = [
        (
            who, one["train"], one["train problems"], one["validation"], one["validation problems"],
            *(one["loss by epoch"][place] if one["loss by epoch"] else None for place in (0, -1)),
            one["validation loss"],
        )
        for who, one in told["taught"].items()
    ]  # fmt: skip
    return Figure(
        f"oracle-taught-{name}",
        f"Oracle: what readers of {name} were taught",
        "Questions and problems that each reader learned from and was watched on, and its loss in nats a token. Null: "
        "`question only` and `output only` learned the same answers without thoughts; a reader whose validation loss "
        "is "
        "not below theirs has read nothing.",
        "",
        (
            "reader",
            "questions",
            "problems",
            "validation questions",
            "problems",
            "first epoch",
            "last epoch",
            "validation",
        ),
        rows,
    )


def _answers(name: str, folder: Path) -> Figure:
    """The first questions of every strategy with everybody's answers."""
    by: dict[str, list[dict[str, Any]]] = {}
    with (folder / "answers.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            by.setdefault(row["strategy"], []).append(row)
    shown = [row for rows in by.values() for row in islice(rows, EXAMPLES)]
    who = tuple(shown[0]["said"]) if shown else ()
    return Figure(
        f"oracle-answers-{name}",
        f"Oracle: questions about {name} and what everybody said",
        f"The first {EXAMPLES} test questions of each kind; the oracle's folder holds all of them (`answers.jsonl`). "
        "Null: the answers of those who read nothing stand in the same row.",
        "",
        ("kind", "problem", "question", "truth", *who),
        [(r["strategy"], r["problem"], r["question"], r["answer"], *(r["said"][one] for one in who)) for r in shown],
    )
