"""Scores of readers: accuracy and balanced accuracy with intervals, beside what could be had without reading.

`controls` are what an answer costs without the thoughts: a guess, the problem's or the output's text alone, another
problem's thoughts, a reader that was never taught. `lenses` read the same thoughts with plain instruments. A claim is
established only if the interval of the reader's balanced accuracy lies above that of every control: readers are taught
on balanced labels, so the commoner answer must not carry them.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stillroom import stats
from stillroom.oracle import founding
from stillroom.oracle.questions import Asked, right

MAJORITY, SHUFFLED, UNTRAINED = "majority", "shuffled thoughts", "untrained reader"
LENS, PROBE = "logit lens", "linear probe"
LENSES = (LENS, PROBE)
RESAMPLES = 1000


def majority(taught: Sequence[Asked], asked: Sequence[Asked]) -> list[str]:
    """The constant answer to the same question about the same step that is right most often in training."""
    known: dict[tuple[str, int | None], list[str]] = defaultdict(list)
    for question in taught:
        known[question.cell].append(question.answer)
    best = {}
    for cell, answers in known.items():
        loose = founding.THERE.get(cell[0])
        if loose is None:
            counted = Counter(answers)
            best[cell] = min(counted, key=lambda answer, counted=counted: (-counted[answer], answer))  # type: ignore[misc]
        else:  # what is checked loosely has a better guess than the most frequent answer
            best[cell], _ = founding.constant(answers, loose.check, [*answers, *loose.guesses])
    return [best.get(question.cell, "") for question in asked]


def balanced(classes: Sequence[str], hits: Sequence[bool], seed: int = 0) -> stats.Interval:
    """The mean over classes of the share of each that is right, with a percentile bootstrap over rows.

    A resample without a class is the mean over those that it has. Where all rows are alike, and no resample could
    differ, the interval is Wilson's.
    """
    if len(set(hits)) == 1:
        return stats.wilson(sum(hits), len(hits))
    hits_N = np.array(hits, dtype=np.float64)
    names, index_N = np.unique(np.array(classes), return_inverse=True)
    member_NC = np.eye(len(names))[index_N]
    drawn_RN = np.random.default_rng(seed).multinomial(len(hits), np.full(len(hits), 1 / len(hits)), RESAMPLES)

    def mean(weights_RN: np.ndarray) -> np.ndarray:
        sizes_RC = weights_RN @ member_NC
        shares_RC = (weights_RN * hits_N) @ member_NC / np.maximum(sizes_RC, 1)
        return np.asarray(shares_RC.sum(1) / (sizes_RC > 0).sum(1))

    low, high = np.quantile(mean(drawn_RN), [0.025, 0.975])
    return stats.Interval(float(mean(np.ones((1, len(hits))))[0]), float(low), float(high))


def scored(asked: Sequence[Asked], said: Sequence[str]) -> dict[str, Any]:
    """Accuracy (Wilson) and balanced accuracy of the answers to one strategy's questions."""
    hits = [right(question, text) for question, text in zip(asked, said, strict=True)]
    return {
        "n": len(hits),
        "accuracy": stats.wilson(sum(hits), len(hits))._asdict(),
        "balanced": balanced([question.answer for question in asked], hits)._asdict(),
    }


def table(asked: Sequence[Asked], said: Mapping[str, Sequence[str | None]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores by strategy and by who answered; who leaves a question of a strategy unanswered has no score there."""
    rows: dict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(asked):
        rows[question.strategy].append(number)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for strategy, numbers in rows.items():
        about = [asked[number] for number in numbers]
        found[strategy] = {}
        for who, texts in said.items():
            own = [text for number in numbers if (text := texts[number]) is not None]
            if len(own) == len(numbers):
                found[strategy][who] = scored(about, own)
    return found


def claims(scores: Mapping[str, Mapping[str, Any]], readers: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """For each strategy and reader: the best control, by how much the reader exceeds it, and whether that is
    established; and beside it the best of the plain lenses, and whether the reader clears them too."""
    told: dict[str, dict[str, dict[str, Any]]] = {}
    for strategy, by in scores.items():
        told[strategy] = {}
        controls = {who: score["balanced"] for who, score in by.items() if who not in (*readers, *LENSES)}
        best = max(controls, key=lambda who: controls[who]["value"])
        lenses = {who: by[who]["balanced"] for who in LENSES if who in by}
        lens = max(lenses, key=lambda who: lenses[who]["value"], default=None)
        for reader in readers:
            own = by[reader]["balanced"]
            told[strategy][reader] = {
                "best control": best,
                "gain": own["value"] - controls[best]["value"],
                "established": all(own["low"] > score["high"] for score in controls.values()),
                "best lens": lens,
                "over lens": None if lens is None else own["value"] - lenses[lens]["value"],
                "clears lenses": None if lens is None else all(own["low"] > score["high"] for score in lenses.values()),
            }
    return told
