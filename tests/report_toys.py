"""Records for the report, small enough to be read in its page."""

import json
from itertools import pairwise
from pathlib import Path

from stillroom.files import write_lines
from stillroom.lenses import write_findings
from stillroom.records import Comparison, Effect, Finding, GridRow, Null, Overlap, Score
from stillroom.store import MANIFEST, Manifest
from toys import problem, workplace

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(1)">'


def score(student: str, split: str, value: float, low: float, high: float, group: str = "all") -> Score:
    address = {"student": student, "seed": 0, "split": split, "group": group, "metric": "accuracy"}
    return Score(**address, value=value, n=100, low=low, high=high)


def finding(metric: str, value: float, low: float, high: float, null: float, **address: object) -> Finding:
    plain = {
        "lens": "weights",
        "subject": "distilled",
        "reference": "normal",
        "layer": 1,
        "module": "all",
        "position": "",
    }
    nulls = (Null(name="null", value=null, low=null - 0.05, high=null + 0.05),)
    return Finding(**{**plain, **address}, metric=metric, value=value, n=50, low=low, high=high, nulls=nulls)


LENS = {"lens": "logit_lens", "subject": "distilled", "reference": "base", "layer": 2, "position": "answer"}
SCORES = [
    score("majority", "test", 0.1, 0.05, 0.15, "1"),
    score("majority", "test", 0.1, 0.05, 0.15),
    score("normal", "test", 0.99, 0.95, 1.0, "1"),
    score("normal", "test", 0.99, 0.95, 1.0),
    score("normal", "train", 1.0, 0.96, 1.0),
    score("distilled", "test", 0.5, 0.4, 0.6, "1"),
    score("distilled", "test", 0.5, 0.4, 0.6),
]
FINDINGS = [
    finding("value 1 in top 5", 0.625, 0.5, 0.75, 0.125, **LENS),
    finding("value 1 in top 5, chosen on validation", 0.625, 0.5, 0.75, 0.125, **LENS),
    finding("relative difference", 0.375, 0.25, 0.5, 0.05),
    finding("share of squared change", 0.875, 0.8, 0.9, 0.5),
]
COMPARISONS = [
    Comparison(a="normal", b="distilled", seed=0, split=split, group="all", n=9, only_a=8, only_b=1, difference=7 / 9,
               low=4 / 9, high=1.0, p=0.0390625)
    for split in ("test", "train")
]  # fmt: skip
OVERLAPS = [
    Overlap(left="toy/train", right="toy/test", role="taught", level="masked", count=3, n=8, examples=(("a", HOSTILE),))
]
METRICS = [{"step": step, "learning_rate": 0.1, "gradient_norm": 1.0, "ce": 2.0 / step} for step in (1, 2, 4)]


def manifest(name: str, stage: str = "student") -> str:
    return Manifest(
        format=1, stage=stage, name=name, key="abc", version=1, config={"fit": {"seed": 7}}, parents={}, files={},
        content="def", code="1", host="host-of-the-toy", machine="m", libraries={}, started="2020", seconds=1.0,
        peak_mb=1,
    ).model_dump_json()  # fmt: skip


def house(root: Path) -> dict[str, Path]:
    """The folders that a report reads."""
    parents = {
        name: workplace(root / name).out for name in ("problems", "contamination", "scores", "normal", "lens toy")
    }
    asked = problem("p", ("2 + 3", 5), question=f"How many {HOSTILE}?")
    write_lines(parents["problems"] / "test.jsonl", [asked])
    write_lines(parents["contamination"] / "overlaps.jsonl", OVERLAPS)
    write_lines(parents["scores"] / "scores.jsonl", SCORES)
    write_lines(parents["scores"] / "comparisons.jsonl", COMPARISONS)
    (parents["normal"] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    write_findings(parents["lens toy"] / "findings.parquet", FINDINGS)
    for name, folder in parents.items():
        (folder / MANIFEST).write_text(manifest(name))
    return parents


def sweep_house(root: Path, count: int) -> dict[str, Path]:
    """A sweep's comparison of `count` students at six levels in many cells, each beside the next."""
    folder = workplace(root / "comparison").out
    cells = [f"normal [level={1 + i % 6} place {i // 6} ]" for i in range(count)]
    values = [0.3 + 0.1 * (i % 6) + 0.001 * (i % 83) for i in range(count)]
    told = {"seed": 0, "split": "test", "group": "all", "metric": "accuracy", "n": 300}
    scores = [
        Score(student=cell, value=v, low=v - 0.05, high=v + 0.05, **told)
        for cell, v in zip([*cells, "majority"], [*values, 0.06], strict=True)
    ]
    grid = [
        GridRow(student="normal", teacher="toy", level=1 + i % 6, format="plain", base="small", rest=f"place {i // 6}",
                seeds=(0,), n=300, value=v, sd=0.0, low=v - 0.05, high=v + 0.05)
        for i, v in enumerate(values)
    ]  # fmt: skip
    pairs = [
        COMPARISONS[0].model_copy(update={"a": a, "b": b, "holm": 0.5}) for a, b in pairwise(cells) for _ in range(3)
    ]
    effects = [
        Effect(question="granularity", subject=f"normal, place {i}", contrast="slope", value=0.1, low=0.05, high=0.15,
               n=300, seeds=1)
        for i in range(count // 6)
    ]  # fmt: skip
    for name, rows in (("grid", grid), ("comparisons", pairs), ("effects", effects), ("scores", scores)):
        write_lines(folder / f"{name}.jsonl", rows)
    (folder / MANIFEST).write_text(manifest("comparison", "comparison"))
    return {"comparison": folder}
