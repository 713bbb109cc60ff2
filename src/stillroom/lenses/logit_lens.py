"""Logit lens (nostalgebraist 2020): which intermediate values can be read off the residual stream, layer by layer.

Every student reads the silent text (see `silent`): the question and `The answer is`, without reasoning in words, with
its pauses or thoughts between them. A value is read by its rank and its probability among all tokens, and counts as
read when it is among the five that the lens ranks highest. Only problems count in which the value stands neither in the
question nor, for an intermediate one, in the answer; those in which it does are counted apart. The null is the same
reading of another problem's value that is right for neither. Layer and place are chosen on validation problems and
reported on test problems; p-values (exact sign test, value against null) are adjusted over each grid.

Legend: L layers (0 is the embedding), P places, C cells (layer and place), B problems, S values asked for,
K candidates, V vocabulary, D width.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from stillroom.activations import unembed
from stillroom.config import Config
from stillroom.lenses import ledger
from stillroom.lenses.ledger import Candidates, Entry, candidates, scored_tokens, truth
from stillroom.lenses.reading import number_token
from stillroom.lenses.selection import CHOSEN, Floats, choose, corrected, in_stream, invalid
from stillroom.lenses.silent import Silent, read_silent
from stillroom.lenses.subjects import Subjects
from stillroom.lenses.twins import random_twin
from stillroom.records import Finding, Null, Problem
from stillroom.stats import Interval, bootstrap_means, sign_test, wilson
from stillroom.students import Student

TOP = 5
ENOUGH = 20
"""Problems of one number of steps, in validation and in test, without which an interval says nothing."""
Translate = Callable[[int, Tensor], Tensor]
"""From a layer and its vectors (…, D) to logits (…, V)."""


class LogitLensConfig(Config):
    name: Literal["logit_lens"] = "logit_lens"
    batch_size: int = Field(64, ge=1)


class Reading(NamedTuple):
    """What a lens reads in every cell: ranks (1 is the likeliest) and probabilities of tokens, scores of candidates."""

    cells: list[tuple[int, str]]
    ranks_CBS: Tensor
    probabilities_CBS: Tensor
    scores_CBK: Tensor


def plain(student: Student) -> Translate:
    """The logit lens itself: final norm and unembedding."""
    return lambda _layer, hidden: unembed(student.model, hidden)


@torch.inference_mode()
def read(student: Student, silent: Silent, tokens_BS: Tensor, among: Candidates, translate: Translate) -> Reading:
    """Ranks and probabilities of the tokens that each problem is asked for, in all cells, one after the other."""
    ranks, probabilities, scores = [], [], []
    cells = [(layer, place) for layer in range(len(silent.stream_LPBD)) for place in silent.places]
    for layer, stream_PBD in enumerate(silent.stream_LPBD):
        for stream_BD in stream_PBD:
            logits_BV = translate(layer, stream_BD.to(student.model.device, student.model.dtype)).float().cpu()
            own_BS = logits_BV.gather(1, tokens_BS)
            rank_BS = torch.ones_like(own_BS)
            for asked, own_B1 in enumerate(own_BS.T[:, :, None]):  # (B, V, S) at once would not fit a large vocabulary
                rank_BS[:, asked] += (logits_BV > own_B1).sum(1)
            ranks.append(rank_BS)
            probabilities.append((own_BS - logits_BV.logsumexp(1, keepdim=True)).exp())
            scores.append(scored_tokens(logits_BV, among))
    return Reading(cells, torch.stack(ranks), torch.stack(probabilities), torch.stack(scores))


def tellable(problems: Sequence[Problem], step: int) -> list[tuple[int, str, str]]:
    """(row, value, another problem's value) where reading the one can be told from reading the question or answer."""
    return [(row, value, other) for row, value, other, stands in _paired(problems, step) if not stands]


def standing(problems: Sequence[Problem], step: int) -> list[tuple[int, str, str]]:
    """The same where the value does stand in the question, or an intermediate one in the answer: counted apart."""
    return [(row, value, other) for row, value, other, stands in _paired(problems, step) if stands]


def _paired(problems: Sequence[Problem], step: int) -> Iterator[tuple[int, str, str, bool]]:
    for row, problem in enumerate(problems):
        value = problem.steps[step].value
        known = ledger.known_numbers(problem, step)
        shift = (*problems[row + 1 :], *problems[:row])
        others = (p.steps[step].value for p in shift if p.steps[step].value not in known | {value, problem.answer})
        other = next(others, None)
        if other is not None:
            yield row, value, other, value in known


def depth(splits: Mapping[str, Sequence[Problem]]) -> int:
    """The largest number of steps that `ENOUGH` problems of every split have, else the commonest; 0 where none is."""
    counts = [Counter(len(problem.steps) for problem in problems) for problems in splits.values()]
    shared = {steps: count for steps in counts[0] if steps and (count := min(c[steps] for c in counts))}
    enough = [steps for steps, count in shared.items() if count >= ENOUGH]
    return max(enough) if enough else max(shared, key=lambda steps: (shared[steps], steps), default=0)


def deepest(subjects: Subjects, *names: str) -> dict[str, list[Problem]]:
    """Of each split the problems with the number of steps that `depth` chooses; empty where no problem has steps."""
    asked = {name: subjects.problems[name] for name in names}
    count = depth(asked)
    return {name: [p for p in rows if len(p.steps) == count] for name, rows in asked.items()} if count else {}


def look(config: LogitLensConfig, subjects: Subjects) -> list[Finding]:
    """The readings of every student but twins, on the problems of `deepest`."""
    splits = deepest(subjects, "validation", "test")
    findings: list[Finding] = []
    for name, student in subjects.readers() if splits else ():
        silent = {split: read_silent(student, problems, config.batch_size) for split, problems in splits.items()}
        fresh = random_twin(student)
        blank = read_silent(fresh, splits["test"], config.batch_size)
        findings += report(config.name, name, student, splits, silent, plain(student), {"untrained": (fresh, blank)})
    return findings


def report(
    lens: str,
    name: str,
    student: Student,
    splits: Mapping[str, Sequence[Problem]],
    silent: Mapping[str, Silent],
    translate: Translate,
    rivals: Mapping[str, tuple[Student, Silent]],
) -> list[Finding]:
    """All findings of one student through one translation: the grid, the chosen cells, and the ledger's rows."""
    among = candidates(student, splits["validation"] + splits["test"])  # type: ignore[operator]
    empty = {split: torch.zeros((len(problems), 0), dtype=torch.long) for split, problems in splits.items()}
    others = {
        rival: read(who, held, empty["test"], among, plain(who)).scores_CBK for rival, (who, held) in rivals.items()
    }
    steps = range(len(splits["test"][0].steps))
    rows = {split: [_paired_tokens(student, problems, step) for step in steps] for split, problems in splits.items()}
    found = {
        split: read(student, silent[split], _asked(rows[split], len(splits[split])), among, translate)
        for split in splits
    }
    grid: list[Finding] = []
    once: list[Finding] = []  # what was chosen is one test, and what stands in the text is read by anyone
    entered: list[Finding] = []
    for step in steps:
        seen, asked = rows["validation"][step].apart, rows["test"][step].apart
        if seen and asked:
            chosen = choose(_gain(found["validation"], seen, step))
            grid += _cells(lens, name, step, found["test"], asked)
            once += _chosen(lens, name, step, chosen, found["test"], asked)
            once += _standing(lens, name, step, chosen, found["test"], rows["test"][step].standing)
        else:
            once.append(_untold(lens, name, step, len(splits["test"])))
        told = {split: truth(student, problems, step, among) for split, problems in splits.items()}
        scores = {split: found[split].scores_CBK[:, told[split].rows] for split in splits}
        beside = {rival: scored[:, told["test"].rows] for rival, scored in others.items()}
        cells = found["test"].cells
        known = told["validation"], told["test"]
        claim = Entry(lens, name, step, cells, scores["validation"], scores["test"], *known, beside)
        entered += [row for region in ledger.regions(cells) for row in ledger.enter(claim.within(region))]
    return [*corrected(grid), *once, *entered]


class Pairs(NamedTuple):
    """Of one step the rows that count, and those whose value stands in the text: each row, and both its tokens."""

    apart: list[tuple[int, int, int]]
    standing: list[tuple[int, int, int]]


def _paired_tokens(student: Student, problems: Sequence[Problem], step: int) -> Pairs:
    def tokenised(rows: Sequence[tuple[int, str, str]]) -> list[tuple[int, int, int]]:
        pairs = [(row, number_token(student, value), number_token(student, other)) for row, value, other in rows]
        return [(row, value, other) for row, value, other in pairs if None not in (value, other) and value != other]  # type: ignore[misc]

    return Pairs(tokenised(tellable(problems, step)), tokenised(standing(problems, step)))


def _asked(rows: Sequence[Pairs], count: int) -> Tensor:
    """(B, 2 × steps): each step's value and another problem's; token 0 where neither counts."""
    tokens_BS = torch.zeros((count, 2 * len(rows)), dtype=torch.long)
    for step, pairs in enumerate(rows):
        for row, value, other in (*pairs.apart, *pairs.standing):
            tokens_BS[row, 2 * step : 2 * step + 2] = torch.tensor([value, other])
    return tokens_BS


def _of(values_CBS: Tensor, rows: Sequence[tuple[int, int, int]], step: int) -> tuple[Floats, Floats]:
    """(C, B) of the values themselves and of the other problems'."""
    picked = values_CBS[:, [row for row, _, _ in rows]].double().numpy()
    return picked[..., 2 * step], picked[..., 2 * step + 1]


def _gain(reading: Reading, rows: Sequence[tuple[int, int, int]], step: int) -> Floats:
    own_CB, other_CB = _of(reading.ranks_CBS, rows, step)
    return np.asarray((own_CB <= TOP).mean(1) - (other_CB <= TOP).mean(1))


def _cells(
    lens: str, name: str, step: int, reading: Reading, rows: Sequence[tuple[int, int, int]], label: str = ""
) -> Iterator[Finding]:
    """Every cell on test problems: share among the first five (with its p), geometric mean rank, mean probability."""
    read_CB, null_CB = (ranks <= TOP for ranks in _of(reading.ranks_CBS, rows, step))
    p_C = sign_test((read_CB & ~null_CB).sum(1), (null_CB & ~read_CB).sum(1)).tolist()
    for cell, own, other, p in zip(reading.cells, read_CB, null_CB, p_C, strict=True):
        value, null = (wilson(int(hits.sum()), len(rows)) for hits in (own, other))
        yield _finding(lens, name, cell, f"value {step + 1} in top {TOP}{label}", value, null, len(rows), p)
    logs = [np.log(ranks) for ranks in _of(reading.ranks_CBS, rows, step)]
    for metric, (own_CB, other_CB), back in (
        ("rank", logs, np.exp), ("probability", _of(reading.probabilities_CBS, rows, step), np.asarray),
    ):  # fmt: skip
        pair = (back(bootstrap_means(values.T)).T.tolist() for values in (own_CB, other_CB))
        for cell, own, other in zip(reading.cells, *pair, strict=True):
            yield _finding(
                lens, name, cell, f"value {step + 1} {metric}{label}", Interval(*own), Interval(*other), len(rows)
            )


def _one(reading: Reading, cell: int) -> Reading:
    """The same with one cell alone."""
    return Reading([reading.cells[cell]], *(values[cell : cell + 1] for values in reading[1:]))


def _chosen(
    lens: str, name: str, step: int, cell: int, reading: Reading, rows: Sequence[tuple[int, int, int]]
) -> Iterator[Finding]:
    """The chosen cell again; its p is one test and needs no correction."""
    yield from _cells(lens, name, step, _one(reading, cell), rows, CHOSEN)


def _standing(
    lens: str, name: str, step: int, cell: int, reading: Reading, rows: Sequence[tuple[int, int, int]]
) -> Iterator[Finding]:
    if rows:
        yield from _cells(lens, name, step, _one(reading, cell), rows, ", standing in the text")


def _untold(lens: str, name: str, step: int, n: int) -> Finding:
    reason = (
        f"in no problem of validation or test can value {step + 1} be told from another problem's: one class alone, or "
        "values that stand in the text"
    )
    return invalid(reason, **in_stream(lens, name, None, "", f"value {step + 1} in top {TOP}"), n=n)


def _finding(
    lens: str,
    name: str,
    cell: tuple[int, str],
    metric: str,
    value: Interval,
    null: Interval,
    n: int,
    p: float | None = None,
) -> Finding:
    return Finding(
        **in_stream(lens, name, *cell, metric),
        n=n,
        nulls=(Null(name="another problem's value", **null._asdict()),),
        p=p,
        **value._asdict(),
    )
