"""The ledger of truth: how well a lens that says "value v is represented here" is right about what is known.

A lens scores every candidate value at every cell (a layer and a place) for every problem. Where a task knows its
intermediate values, the score of the true value is ranked among the scores of all other candidates: the share of them
that it beats is the problem's AUROC, and beating all is a top-1. Candidates that stand in the question, and the answer
(for an intermediate value), are left out: reading them would be reading the text. Nulls: the frequency of a value among
the values of that step, which knows nothing of the problem, and the same scores taken of another problem.

Legend: C cells, B problems, K candidates.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillroom.lenses.reading import NUMBER, number_token
from stillroom.lenses.selection import CHOSEN, choose, in_stream, invalid
from stillroom.records import Finding, Null, Problem
from stillroom.stats import Interval, bootstrap_means
from stillroom.students import Student

Floats = NDArray[np.float64]


class Truth(NamedTuple):
    """The problems that can be told, by row, the candidate that each one's true value is, and who competes with it."""

    rows: list[int]
    true_B: Tensor
    allowed_BK: Tensor


class Candidates(NamedTuple):
    """The values that a lens may name and the tokens by which it would; no two share a token."""

    values: list[str]
    tokens: list[int]

    def place(self, value: str, student: Student) -> int | None:
        token = number_token(student, value)
        return self.tokens.index(token) if token in self.tokens else None


def candidates(student: Student, problems: Sequence[Problem]) -> Candidates:
    """All intermediate values and answers of the problems; of values that begin with the same token, the first."""
    found: dict[int, str] = {}
    for value in sorted({step.value for problem in problems for step in problem.steps}, key=lambda v: (len(v), v)):
        token = number_token(student, value)
        if token is not None:
            found.setdefault(token, value)
    return Candidates(list(found.values()), list(found))


def known_numbers(problem: Problem, step: int) -> set[str]:
    """The numbers that reading the question, or for an intermediate value the answer, would give away."""
    known = {*NUMBER.findall(problem.question)}
    return known | {problem.answer} if step < len(problem.steps) - 1 else known


def truth(student: Student, problems: Sequence[Problem], step: int, among: Candidates) -> Truth:
    """What is known of one step's value, in the problems in which it can be told from what stands there."""
    rows, places, allowed = [], [], []
    index = {value: k for value in {s.value for p in problems for s in p.steps} | {n for p in problems for n in
             known_numbers(p, step)} if (k := among.place(value, student)) is not None}  # fmt: skip
    for row, problem in enumerate(problems):
        value, known = problem.steps[step].value, known_numbers(problem, step)
        hidden = {index[number] for number in known if number in index}
        if value in known or value not in index or index[value] in hidden:
            continue
        mask = torch.ones(len(among.tokens), dtype=torch.bool)
        mask[list(hidden)] = False
        mask[index[value]] = False
        if mask.any():
            rows.append(row)
            places.append(index[value])
            allowed.append(mask)
    empty = torch.zeros((0, len(among.tokens)), dtype=torch.bool)
    return Truth(rows, torch.tensor(places, dtype=torch.long), torch.stack(allowed) if allowed else empty)


def beaten(scores_CBK: Tensor, true_B: Tensor, allowed_BK: Tensor) -> Floats:
    """(C, B): the share of the allowed candidates that the true one beats; half of a tie is beaten."""
    own_CB1 = scores_CBK.gather(-1, true_B[None, :, None].expand(len(scores_CBK), -1, 1))
    won_CBK = ((scores_CBK < own_CB1).double() + 0.5 * (scores_CBK == own_CB1).double()) * allowed_BK
    return np.asarray((won_CBK.sum(-1) / allowed_BK.sum(-1)).numpy(), dtype=np.float64)


def frequency(true_B: Tensor, count: int) -> Tensor:
    """(K,) how often each candidate was the true value: what can be known without looking."""
    return torch.bincount(true_B, minlength=count).double()


class Entry(NamedTuple):
    """One row of the ledger to be written: who claims what about whom, from scores of validation and test problems."""

    lens: str
    subject: str
    step: int
    cells: Sequence[tuple[int, str]]
    """Layer and place of each cell."""
    validation_CBK: Tensor
    test_CBK: Tensor
    seen: Truth
    """Of the validation problems; `rows` says to which problems the scores' rows belong."""
    asked: Truth
    """Of the test problems."""
    rivals: Mapping[str, Tensor] = {}
    """Scores (C, B, K) or (1, B, K) of the test problems from references to beat, in the same cells."""
    region: str = ""
    """Ends the metric, where the cells are not all that there are."""

    def within(self, region: "Region") -> "Entry":
        """The same claim made of some of the cells."""
        at = region.at
        rivals = {name: scores[at] if len(scores) > 1 else scores for name, scores in self.rivals.items()}
        return self._replace(
            cells=[self.cells[i] for i in at],
            validation_CBK=self.validation_CBK[at],
            test_CBK=self.test_CBK[at],
            rivals=rivals,
            region=region.name,
        )

    def best(self) -> int:
        """The cell that validation problems choose, by AUROC."""
        return choose(beaten(self.validation_CBK, self.seen.true_B, self.seen.allowed_BK).mean(axis=1))


class Region(NamedTuple):
    """Cells among which a lens makes a claim of its own."""

    name: str
    at: list[int]


def regions(cells: Sequence[tuple[int, str]]) -> list[Region]:
    """All cells and, where a student thinks, those of its thoughts: what they hold is a question of its own."""
    thoughts = [i for i, (_, place) in enumerate(cells) if place.startswith("thought")]
    return [Region("", list(range(len(cells)))), *([Region(" in thoughts", thoughts)] if thoughts else [])]


def enter(entry: Entry) -> list[Finding]:
    """AUROC and top-1 of one value in the cell that validation problems chose, on test problems."""
    if not entry.seen.rows or not entry.asked.rows:
        return []
    if len({*entry.asked.true_B.tolist()}) < 2:
        reason = f"value {entry.step + 1} is the same in all test problems that tell it: one class tells nothing"
        metric = f"value {entry.step + 1} AUROC{entry.region}"
        return [invalid(reason, **in_stream(entry.lens, entry.subject, None, "", metric), n=len(entry.asked.rows))]
    cell = entry.best()
    true_B, allowed_BK = entry.asked.true_B, entry.asked.allowed_BK
    mine_BK = entry.test_CBK[cell]
    nulls_BK = {
        "frequency of the value": frequency(entry.seen.true_B, allowed_BK.shape[1]).expand(len(true_B), -1),
        "another problem's reading": mine_BK.roll(1, dims=0),
        **{name: scores[cell if len(scores) > 1 else 0] for name, scores in entry.rivals.items()},
    }
    shares_NB = beaten(torch.stack([mine_BK, *(s.to(mine_BK) for s in nulls_BK.values())]), true_B, allowed_BK)
    layer, place = entry.cells[cell]
    findings = []
    for metric, rows_NB in (("AUROC", shares_NB), ("top-1", (shares_NB == 1).astype(np.float64))):
        mine, *others = (Interval(*column) for column in bootstrap_means(rows_NB.T).T.tolist())
        nulls = [Null(name=name, **other._asdict()) for name, other in zip(nulls_BK, others, strict=True)]
        findings.append(
            Finding(
                **in_stream(
                    entry.lens, entry.subject, layer, place, f"value {entry.step + 1} {metric}{entry.region}{CHOSEN}"
                ),
                n=len(true_B),
                nulls=tuple(nulls),
                **mine._asdict(),
            )
        )
    return findings


def scored_tokens(logits: Tensor, among: Candidates) -> Tensor:
    """The candidates' log-probabilities of logits (…, V), in float64 on the CPU: (…, K)."""
    return torch.log_softmax(logits.double(), dim=-1)[..., among.tokens].cpu()
