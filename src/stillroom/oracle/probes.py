"""The plain lenses that a reader stands beside: linear probes and the logit lens, on the same thoughts.

A probe is the ridge probe of `lenses.probing`, from standardised thoughts to one-hot labels, and behind it a linear
discriminant: where a class lies between others, as 7 between 6 and 8, its own output is seldom the highest (Hastie,
Tibshirani, Friedman 2009, §4.2), but all outputs together tell it. The whole is affine. The logit lens needs no fit: it
says what the student's head ranks highest.

Legend: N rows, F features, M outputs of a ridge probe (one a class), C classes, K thoughts, d width.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from torch import Tensor

from stillroom.lenses import probing
from stillroom.lenses.probing import Floats, one_hot
from stillroom.oracle import questions
from stillroom.oracle.questions import Asked, Seen
from stillroom.oracle.tables import Traces
from stillroom.records import Trace

LOOKED = 3000
"""Traces on which the steps that thoughts hold are told; what is then read of them is fitted on all."""
CLASSES = 64
"""More different answers than that are no classes: the probe leaves such questions unanswered."""
ENOUGH = 40
"""Training rows of a cell below which nothing is fitted."""
GAIN = 0.1
"""By how much a probe's accuracy must exceed the majority's for a thought to count as holding a step's value."""
HELD_OUT = 5
"""One of so many rows chooses what a probe reads, and teaches it nothing while it does."""
SMALLEST = 1e-6
"""Of the outputs' mean variance, added to each: one-hot labels sum to one, so that one direction has none."""


class Probe(NamedTuple):
    ridge: probing.Probe
    weights_MC: Floats
    bias_C: Floats
    classes: tuple[str, ...]

    def read(self, features_NF: Tensor) -> list[str]:
        """The likeliest class of each row."""
        scores_NC = self.ridge.scores(_floats(features_NF)) @ self.weights_MC + self.bias_C
        return [self.classes[index] for index in scores_NC.argmax(1).tolist()]


def _floats(features_NF: Tensor) -> Floats:
    return np.asarray(features_NF.double().numpy())


def fit(features_NF: Tensor, labels: Sequence[str], groups: Sequence[str]) -> Probe:
    """A probe of the labels; rows of one group stand together when the ridge's strength is chosen.

    Raises `DataError` as `probing.fit` does.
    """
    classes = tuple(sorted(set(labels)))
    y_N = np.array([classes.index(label) for label in labels])
    x_NF = _floats(features_NF)
    ridge = probing.fit(x_NF, one_hot(y_N, len(classes)), groups)
    return Probe(ridge, *_discriminant(ridge.scores(x_NF), one_hot(y_N, len(classes))), classes)


def _discriminant(scores_NM: Floats, targets_NC: Floats) -> tuple[Floats, Floats]:
    """Weights and offsets of the log-probabilities of classes that are normal, of one covariance, and as frequent as
    here (up to a constant of the row)."""
    sizes_C = targets_NC.sum(0)
    means_CM = targets_NC.T @ scores_NM / sizes_C[:, None]
    rest_NM = scores_NM - targets_NC @ means_CM
    spread_MM = rest_NM.T @ rest_NM / len(rest_NM)
    spread_MM += SMALLEST * max(float(np.trace(spread_MM)) / len(spread_MM), SMALLEST) * np.eye(len(spread_MM))
    weights_MC = np.linalg.solve(spread_MM, means_CM.T)
    return weights_MC, np.log(sizes_C / sizes_C.sum()) - (weights_MC * means_CM.T).sum(0) / 2


def accuracy(features_NF: Tensor, labels: Sequence[str], groups: Sequence[str]) -> float | None:
    """How often a probe is right on rows that are held out. None where there are too many answers or too few rows,
    no more of them than features."""
    asked = [row for row in range(len(labels)) if row % HELD_OUT == 0]
    taught = [row for row in range(len(labels)) if row % HELD_OUT]
    if len(labels) < ENOUGH or len(set(labels)) > CLASSES or len(taught) <= features_NF.shape[1]:
        return None
    probe = fit(features_NF[taught], [labels[row] for row in taught], [groups[row] for row in taught])
    said = probe.read(features_NF[asked])
    return sum(text == labels[row] for text, row in zip(said, asked, strict=True)) / len(asked)


def held(traces: Traces) -> tuple[int | None, ...]:
    """For each thought the step of the solution whose value a linear probe reads best in it, on training traces alone.

    Steps count from 0, or, as -2 for the last but one, from the end. None for a thought in which no probe beats the
    majority by `GAIN`. The last step's value is the answer and no candidate.
    """
    found: list[int | None] = []
    looked = range(0, len(traces.rows), -(-len(traces.rows) // LOOKED))
    deepest = max(len(trace.steps) for trace in traces.rows) - 1
    for thought in range(traces.steps):
        gains = {}
        for step in (*range(deepest), *range(-2, -deepest - 2, -1)):
            valued = [(row, questions.intermediate(traces.rows[row], step)) for row in looked]
            rows = [row for row, value in valued if value is not None]
            labels = [value for _, value in valued if value is not None]
            right = accuracy(_features(traces, rows, thought), labels, _groups(traces, rows))
            if right is not None:
                gains[step] = right - Counter(labels).most_common(1)[0][1] / len(labels)
        best = max(gains, key=lambda step: gains[step], default=None)
        found.append(best if best is not None and gains[best] >= GAIN else None)
    return tuple(found)


def probed(train: Traces, taught: Sequence[Asked], test: Traces, asked: Sequence[Asked]) -> list[str | None]:
    """What linear probes answer: one for each cell of a strategy and a step, on the thought that is asked about or on
    all of them, whichever reads better. None where there are too many answers or too few rows to learn from."""
    cells: dict[tuple[str, int | None], list[Asked]] = defaultdict(list)
    for question in taught:
        cells[question.cell].append(question)
    wanted: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for number, question in enumerate(asked):
        wanted[question.cell].append(number)

    @cache  # the same is asked about every thought that holds the same step: all thoughts together then answer alike
    def right(thought: int | None, rows: tuple[int, ...], labels: tuple[str, ...]) -> float:
        return accuracy(_features(train, rows, thought), labels, _groups(train, rows)) or 0.0

    @cache
    def learned(thought: int | None, rows: tuple[int, ...], labels: tuple[str, ...]) -> Probe:
        return fit(_features(train, rows, thought), labels, _groups(train, rows))

    said: list[str | None] = [None] * len(asked)
    for cell, numbers in wanted.items():
        known = tuple(one.row for one in cells[cell]), tuple(one.answer for one in cells[cell])
        step = cell[1] if cell[1] is not None and cell[1] < train.steps else None
        scores = {thought: right(thought, *known) for thought in (None, step)}
        best = max(scores, key=lambda thought: scores[thought])
        if scores[best]:
            answers = learned(best, *known).read(_features(test, [asked[n].row for n in numbers], best))
            for n, answer in zip(numbers, answers, strict=True):
                said[n] = answer
    return said


def _groups(traces: Traces, rows: Sequence[int]) -> list[str]:
    return [traces.rows[row].skeleton or traces.rows[row].problem for row in rows]


def _features(traces: Traces, rows: Sequence[int], thought: int | None) -> Tensor:
    """(N, d) of one thought, or (N, K·d) of all end to end."""
    every_NKd = traces.thoughts_NKd[list(rows)]
    return every_NKd.flatten(1) if thought is None else every_NKd[:, thought]


def read_off(seen: Sequence[Seen], asked: Sequence[Asked]) -> list[str | None]:
    """What the logit lens answers: a value is the likeliest number among a thought's top tokens; what is asked about
    its tokens and their entropy is what it shows."""
    shown = {"top tokens", "entropy", "token class"}
    said: list[str | None] = []
    for question in asked:
        trace = seen[question.row].trace
        if question.strategy == "value" and question.step is not None:
            said.append(_number(trace, question.step))
        else:
            said.append(question.answer if question.strategy in shown else None)
    return said


def _number(trace: Trace, step: int) -> str:
    tokens = [token.strip() for token, _ in trace.thoughts[step].top]
    return next((token for token in tokens if questions.numbers(token) == [token]), "")
