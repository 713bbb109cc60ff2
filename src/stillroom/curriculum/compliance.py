"""Did the teacher obey? Words, sentences, steps and equations of rationales, cell by cell, and whether levels differ.

A *cell* is one dataset, teacher, format and granularity. Levels that do not separate in length are flagged: a study
that compares them compares names. Accuracy and diversity stand beside them, since they can outweigh granularity
(arXiv 2502.18001).
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, Field
from scipy.stats import rankdata

from stillroom.config import Config
from stillroom.curriculum.gates import TRUSTED, flaw
from stillroom.errors import DataError
from stillroom.files import numbered_lines, read_lines, write_atomic
from stillroom.records import Kind, Problem, Rationale
from stillroom.stats import Interval, bootstrap_mean, wilson
from stillroom.store import Workplace
from stillroom.tasks.answers import Question, grade_all
from stillroom.teachers import concluded

VERSION = 2
SENTENCE = re.compile(r"(?<=[.!?])[\"')\]*]*\s+(?=[\"'(*$\\A-Z0-9])|\n+")
STEP = re.compile(r"^\s*(?:\d{1,2}[.)]|step \d+[:.]?|[-*•])\s", re.IGNORECASE | re.MULTILINE)
EQUATION = re.compile(r"[\w)}\]%$]\s*=\s*[-$({\[\\\w]")
KINDS: dict[str, Kind] = {
    "math": "math",
    "aqua": "choice",
    "csqa": "choice",
    "openbookqa": "choice",
    "strategyqa": "boolean",
}
"""The kind of answer of datasets whose answers are not numbers."""


class Cell(NamedTuple):
    dataset: str
    teacher: str
    format: str
    granularity: int | None


class Text(NamedTuple):
    cell: Cell
    id: str
    text: str
    answer: str
    truncated: bool = False
    usd: float | None = None
    """What it cost, where that is known."""
    kind: Kind = "numeric"
    """The kind of its answer."""


class Measures(BaseModel):
    """One cell. Every measure is a mean over its `n` texts, with a 95 % bootstrap interval."""

    cell: Cell
    n: int
    words: Interval
    sentences: Interval
    steps: Interval
    equations: Interval
    equations_a_step: float
    """Mean equations by mean steps: how much is reckoned, whatever the length."""
    accuracy: Interval | None
    truncated: Interval
    """Share that the length limit cut off."""
    kept: Interval
    """Share that the gates would let through (but for near-duplicates among samples)."""
    usd_per_kept: float | None
    distinct_2: float
    """Different word pairs by all word pairs: low where the teacher repeats itself from problem to problem."""
    self_similarity: float
    """Mean cosine of the word counts of neighbouring texts (problems in file order): high where texts are alike."""


class Family(BaseModel):
    """The levels of one dataset, teacher and format."""

    dataset: str
    teacher: str
    format: str
    monotonicity: Interval
    """Spearman's rank correlation of level and words over problems, with a bootstrap interval."""
    blurred: list[tuple[int, int]]
    """Adjacent levels of which the finer is not longer: its interval does not lie above those of all coarser ones."""


class Report(BaseModel):
    cells: list[Measures]
    families: list[Family]


class ComplianceConfig(Config):
    each: int = Field(2000, ge=1)
    """So many rationales of each cell are measured, evenly spaced: a file may be sorted, as by number of steps."""


def make_compliance(config: ComplianceConfig, at: Workplace) -> None:
    """Stage `compliance`: the report on a run's rationales, as `compliance.json`."""
    problems = {p.id: p for p in read_lines(at.parents["problems"] / "train.jsonl", Problem)}
    written: dict[Cell, list[Rationale]] = defaultdict(list)
    for one in read_lines(at.parents["rationales"] / "rationales.jsonl", Rationale):
        written[Cell(problems[one.problem].task, one.teacher, one.format, one.granularity)].append(one)
    texts = []
    for cell, rows in written.items():
        count = min(config.each, len(rows))
        for one in (rows[i * len(rows) // count] for i in range(count)):
            problem = problems[one.problem]
            said = f"{one.text}\n{one.conclusion}" if one.conclusion else one.text
            answer = "" if one.teacher in TRUSTED else problem.answer  # it is the gold that such a text was made of
            texts.append(Text(cell, one.problem, said, answer, one.truncated, None, problem.kind))
    write_atomic(at.out / "compliance.json", compliance(texts).model_dump_json(indent=1) + "\n")


def read_texts(path: Path) -> Iterator[Text]:
    """The rationales of a JSON-lines file with `dataset, id, teacher, granularity, format, cot`. Raises `DataError`."""
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
            cell = Cell(row["dataset"], row.get("model") or row["teacher"], row["format"], row["granularity"])
            cut, usd = row.get("finish") == "length", row.get("usd")
            kind = row.get("kind") or KINDS.get(row["dataset"], "numeric")
            yield Text(cell, str(row["id"]), row["cot"], str(row.get("answer", "")), cut, usd, kind)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}:{number}: {error}: expected dataset, id, teacher, granularity, format and cot"
            ) from None


def counts(text: str) -> tuple[int, int, int, int]:
    """Words (separated by blanks), sentences, steps (numbered or listed lines, else sentences) and equations."""
    sentences = sum(1 for part in SENTENCE.split(STEP.sub("", text)) if part.strip())
    return len(text.split()), sentences, len(STEP.findall(text)) or sentences, len(EQUATION.findall(text))


def compliance(texts: Iterable[Text]) -> Report:
    cells: dict[Cell, list[Text]] = defaultdict(list)
    for text in texts:
        cells[text.cell].append(text)
    measured = [measure(cell, rows) for cell, rows in sorted(cells.items(), key=lambda item: str(item[0]))]
    lengths = {cell: {row.id: len(row.text.split()) for row in rows} for cell, rows in cells.items()}
    families = sorted({(cell.dataset, cell.teacher, cell.format) for cell in cells if cell.granularity is not None})
    found = [family(name, [m for m in measured if m.cell[:3] == name], lengths) for name in families]
    return Report(cells=measured, families=[one for one in found if one is not None])


def measure(cell: Cell, rows: Sequence[Text]) -> Measures:
    """All measures of one cell's texts, of which there is at least one."""
    columns = np.array([counts(row.text) for row in rows], dtype=float).T
    words, sentences, steps, equations = (bootstrap_mean(column) for column in columns)
    asked = [Question(row.kind, row.answer, row.text) for row in rows if row.answer]
    right = [verdict.correct for verdict in grade_all(asked)]
    verdicts = iter(right)
    correct = [not row.answer or next(verdicts) for row in rows]
    passed = [ok and flaw(concluded(row.text)[0], row.truncated) is None for row, ok in zip(rows, correct, strict=True)]
    costs = [row.usd for row in rows if row.usd is not None]
    return Measures(
        cell=cell, n=len(rows), words=words, sentences=sentences, steps=steps, equations=equations,
        equations_a_step=equations.value / steps.value if steps.value else 0.0,
        accuracy=wilson(sum(right), len(right)) if right else None,
        truncated=wilson(sum(row.truncated for row in rows), len(rows)), kept=wilson(sum(passed), len(rows)),
        usd_per_kept=sum(costs) / sum(passed) if costs and any(passed) else None,
        distinct_2=distinct([row.text for row in rows]), self_similarity=similarity([row.text for row in rows]),
    )  # fmt: skip


def distinct(texts: Sequence[str]) -> float:
    """distinct-2 (Li et al. 2016): different word pairs divided by all word pairs; 0 where there is none."""
    pairs = Counter(pair for text in texts for pair in pairwise(text.lower().split()))
    return len(pairs) / pairs.total() if pairs else 0.0


def similarity(texts: Sequence[str]) -> float:
    """Mean cosine of the word counts of texts that follow one another; 0 for fewer than two."""
    bags = [Counter(text.lower().split()) for text in texts]
    cosines = [
        sum(n * two[word] for word, n in one.items()) / (_norm(one) * _norm(two))
        for one, two in pairwise(bags)
        if one and two
    ]
    return float(np.mean(cosines)) if cosines else 0.0


def _norm(bag: Counter[str]) -> float:
    return float(np.sqrt(sum(n * n for n in bag.values())))


def family(
    name: tuple[str, str, str], members: Sequence[Measures], lengths: dict[Cell, dict[str, int]]
) -> Family | None:
    """What the levels of one family say together; None where there is one level alone."""
    levels = sorted(members, key=lambda m: m.cell.granularity or 0)
    if len(levels) < 2:
        return None
    blurred, highest = [], levels[0].words.high
    for coarse, fine in pairwise(levels):
        if fine.words.low <= highest:
            blurred.append((coarse.cell.granularity or 0, fine.cell.granularity or 0))
        highest = max(highest, fine.words.high)
    shared = sorted(set.intersection(*(set(lengths[m.cell]) for m in levels)))
    table = np.array([[lengths[m.cell][one] for m in levels] for one in shared], dtype=float)
    rise = spearman(table) if len(shared) > 1 else Interval(float("nan"), float("nan"), float("nan"))
    return Family(dataset=name[0], teacher=name[1], format=name[2], monotonicity=rise, blurred=blurred)


def shown(report: Report) -> str:
    """The report as lines of text: a row a cell, then what each family's levels say together."""
    names = ("words", "sentences", "steps", "equations", "accuracy", "truncated", "kept")
    head = (
        f"{'cell':44}{'n':>6}"
        + "".join(f"{name:>22}" for name in names)
        + f"{'eq./step':>10}{'distinct-2':>12}{'self-sim.':>11}{'usd/kept':>10}"
    )
    rows = [
        f"{' '.join(str(part) for part in m.cell if part is not None):44}{m.n:>6}"
        + "".join(f"{_interval(getattr(m, name)):>22}" for name in names)
        + f"{m.equations_a_step:>10.2f}{m.distinct_2:>12.3f}{m.self_similarity:>11.3f}"
        + (f"{m.usd_per_kept:>10.5f}" if m.usd_per_kept is not None else f"{'–':>10}")
        for m in report.cells
    ]
    return "\n".join([head, *rows, "", *map(_told, report.families)])


def _told(one: Family) -> str:
    pairs = ", ".join(f"{coarse}→{fine}" for coarse, fine in one.blurred)
    verdict = f"not longer than the levels below: {pairs}" if pairs else "every level is longer than those below"
    name = f"{one.dataset} {one.teacher} {one.format}"
    return f"{name}: Spearman of level and words {_interval(one.monotonicity)}; {verdict}"


def _interval(value: Interval | None) -> str:
    return "–" if value is None else f"{value.value:.3g} [{value.low:.3g}, {value.high:.3g}]"


def spearman(table: np.ndarray) -> Interval:
    """Mean over problems (rows) of Spearman's correlation of words with level (columns), and its bootstrap interval."""
    levels = np.arange(table.shape[1], dtype=float) - (table.shape[1] - 1) / 2
    ranks = rankdata(table, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(axis=1) * (levels**2).sum())
    rho = np.divide(ranks @ levels, spread, out=np.zeros(len(table)), where=spread > 0)
    return bootstrap_mean(rho)
