"""Solved or memorised? What a student does where memory of the training problems does not help, or misleads.

Four measures: training minus test accuracy; test minus the splits that ask for more than training did (both among
problems with equally many steps, where there are any); training problems beside copies of them with other numbers,
which a student that knows its answers by heart gets wrong, in favour of the original's answer; and what the answer of
the nearest training problem is worth. The null of each difference is that of a student that always gives the most
frequent training answer.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field
from scipy import sparse

from stillroom import stats
from stillroom.config import Config
from stillroom.evaluation import graded_splits, judge, majority, spaced
from stillroom.files import read_lines, write_lines
from stillroom.progress import say
from stillroom.records import Finding, Null, Prediction, Problem
from stillroom.stats import Interval
from stillroom.store import Workplace
from stillroom.tasks import TEST, TRAIN
from stillroom.tasks.answers import Question, grade_all
from stillroom.tasks.rewording import renumbered

VERSION, COPIES_VERSION = 2, 1
LENS, NEIGHBOUR = "memorising", "nearest training problem"
COPIES, ORIGINALS = "copies", "originals"
WORD = re.compile(r"\w+|[^\w\s]")
CHUNK = 64


class MemorisingConfig(Config):
    copies: int = Field(300, ge=1)
    """Training problems, evenly spaced, that are asked with other numbers."""
    neighbours: int = Field(300, ge=1)
    """Problems of a split, evenly spaced, for which the nearest training problem is sought."""
    seed: int = 0


class Whose(Config):
    """From the role of each parent to the student's name as the findings say it."""

    students: dict[str, str]
    train_sample: int = Field(500, ge=0)
    measured: MemorisingConfig = MemorisingConfig()


def make_copies(config: MemorisingConfig, at: Workplace) -> None:
    """Stage `copies`: training problems and, row by row, the same with other numbers."""
    train = read_lines(at.parents["problems"] / f"{TRAIN}.jsonl", Problem)
    pairs = copied(train, config.copies, config.seed)
    if not pairs:
        say(f"  {at.name}: no training problem tells where the numbers of its steps come from: nothing can be copied")
    write_lines(at.out / f"{ORIGINALS}.jsonl", [original for original, _ in pairs])
    write_lines(at.out / f"{COPIES}.jsonl", [copy for _, copy in pairs])


def copied(train: Sequence[Problem], count: int, seed: int) -> list[tuple[Problem, Problem]]:
    """Up to `count` training problems with their copies, none of which is computed as a training problem is."""
    taught = {_computed(problem) for problem in train}
    values = [int(step.value) for problem in train for step in problem.steps if step.value.isdecimal()]
    largest = max(values, default=0)
    pairs: dict[str, tuple[Problem, Problem]] = {}
    for problem in spaced(train, 4 * count):  # many problems name a number twice and cannot be traced
        copy = renumbered(problem, largest, random.Random(f"copies {seed} {problem.id}"))
        if copy is not None and _computed(copy) not in taught:
            pairs[problem.id] = (problem, copy)
    kept = list(pairs.values())
    return [kept[i * len(kept) // count] for i in range(count)] if len(kept) > count else kept


def _computed(problem: Problem) -> tuple[str, ...]:
    return tuple(step.expression for step in problem.steps)


def nearest(train: Sequence[str], asked: Sequence[str]) -> list[int]:
    """For each text the row of the training text nearest to it: the cosine of words and pairs of neighbouring words,
    the rarer the weightier (tf-idf); of equally near ones the first."""
    names: dict[tuple[str, ...], int] = {}
    rows = [Counter(_grams(text)) for text in train]
    for row in rows:
        for gram in row:
            names.setdefault(gram, len(names))
    met = Counter(gram for row in rows for gram in row)
    rarity = np.array([math.log(len(train) / met[gram]) + 1 for gram in names])
    home = _vectors(rows, names, rarity)
    found: list[int] = []
    for start in range(0, len(asked), CHUNK):
        few = _vectors([Counter(_grams(text)) for text in asked[start : start + CHUNK]], names, rarity)
        likeness = home @ few.T.toarray()  # several times as fast as two sparse sides
        found += [int(row) for row in likeness.argmax(axis=0)]
    return found


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    yield from ((word,) for word in words)
    yield from pairwise(words)


def _vectors(
    rows: Sequence[Counter[tuple[str, ...]]], names: Mapping[tuple[str, ...], int], rarity: np.ndarray
) -> sparse.csr_array:
    """Rows of length 1 (0 where no word is known)."""
    cells = [(i, names[gram], count) for i, row in enumerate(rows) for gram, count in row.items() if gram in names]
    at, of, counts = (np.array(column) for column in zip(*cells, strict=True)) if cells else (np.zeros(0, int),) * 3
    plain = sparse.csr_array((counts * rarity[of], (at, of)), shape=(len(rows), len(names)))
    lengths = np.sqrt((plain * plain).sum(axis=1))
    return sparse.csr_array(sparse.diags_array(1 / np.where(lengths > 0, lengths, 1.0)) @ plain)


class Answered(NamedTuple):
    """A split as one answered it: what was right, problem by problem."""

    problems: Sequence[Problem]
    right: Sequence[bool]

    def counts(self) -> tuple[int, int]:
        return sum(self.right), len(self.right)

    def by_steps(self) -> dict[int, tuple[int, int]]:
        """How many are right, and of how many, for each number of steps."""
        held: dict[int, list[bool]] = {}
        for problem, right in zip(self.problems, self.right, strict=True):
            held.setdefault(len(problem.steps), []).append(right)
        return {steps: (sum(rows), len(rows)) for steps, rows in sorted(held.items())}


def make_memorising(config: Whose, at: Workplace) -> None:
    """Stage `memorising`: the findings of all four measures."""
    splits = graded_splits(at.parents["problems"], config.train_sample)
    train = read_lines(at.parents["problems"] / f"{TRAIN}.jsonl", Problem)
    pairs = {name: read_lines(at.parents["copies"] / f"{name}.jsonl", Problem) for name in (ORIGINALS, COPIES)}
    constant = majority(problem.answer for problem in train)
    null = {name: guessed(problems, constant) for name, problems in {**splits, **pairs}.items()}
    found = list(neighbours(train, splits, null, config.measured.neighbours))
    for role, student in config.students.items():
        mine = {name: answered(problems, at.parents[role] / f"{name}.jsonl") for name, problems in splits.items()}
        found += gaps(student, mine, null)
        files = {name: at.parents[f"{role} on copies"] / f"{name}.jsonl" for name in pairs}
        both = {name: answered(problems, files[name]) for name, problems in pairs.items()}
        if pairs[COPIES]:
            found.append(renumbering(student, both[ORIGINALS].right, both[COPIES].right, null))
            found.append(by_heart(student, pairs[ORIGINALS], both[COPIES], files[COPIES]))
    write_lines(at.out / "findings.jsonl", found)


def answered(problems: Sequence[Problem], file: Path) -> Answered:
    return Answered(problems, [verdict.correct for verdict in judge(problems, read_lines(file, Prediction))])


def guessed(problems: Sequence[Problem], constant: str) -> Answered:
    return Answered(problems, [problem.answer == constant for problem in problems])


def gaps(student: str, mine: Mapping[str, Answered], null: Mapping[str, Answered]) -> Iterator[Finding]:
    """Training minus test, and test minus every further split."""
    pairs = [(TRAIN, TEST)] if TRAIN in mine else []
    pairs += [(TEST, split) for split in mine if split not in (TRAIN, TEST)]
    for a, b in pairs:
        strata = alike(mine[a], mine[b])
        other = Null(name="majority", **stats.difference(alike(null[a], null[b]))._asdict())
        n = sum(of_a + of_b for _, of_a, _, of_b in strata)
        yield _finding(student, f"{a} minus {b} accuracy", stats.difference(strata), n, other)


def alike(a: Answered, b: Answered) -> list[tuple[int, int, int, int]]:
    """What is right in each, number of steps by number of steps: a sample of training problems has another mix of them
    than a test split, and the longer are the harder. Where none is in both, the longest of `a` beside all of `b`."""
    one, two = a.by_steps(), b.by_steps()
    shared = [steps for steps in one if steps in two]
    return [(*one[steps], *two[steps]) for steps in shared] or [(*one[max(one)], *b.counts())]


def renumbering(student: str, original: Sequence[bool], copy: Sequence[bool], null: Mapping[str, Answered]) -> Finding:
    """What other numbers cost, pair by pair."""

    def apart(a: Sequence[bool], b: Sequence[bool]) -> Interval:
        return stats.bootstrap_mean(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))

    other = apart(null[ORIGINALS].right, null[COPIES].right)
    metric = "training problems minus their copies with other numbers, accuracy"
    return _finding(student, metric, apart(original, copy), len(copy), Null(name="majority", **other._asdict()))


def by_heart(student: str, originals: Sequence[Problem], copies: Answered, file: Path) -> Finding:
    """How often a copy gets the answer of its original; null: that of the next original."""
    texts = [answer.text for answer in read_lines(file, Prediction)]

    def share(golds: Sequence[str]) -> Interval:
        rows = zip(golds, copies.problems, texts, strict=True)
        verdicts = list(grade_all(Question(p.kind, gold, text, p.choices) for gold, p, text in rows))
        return stats.wilson(sum(verdict.correct for verdict in verdicts), len(verdicts))

    golds = [problem.answer for problem in originals]
    null = Null(name="another original's", **share([*golds[1:], golds[0]])._asdict())
    return _finding(student, "copies that were given their original's answer", share(golds), len(golds), null)


def neighbours(
    train: Sequence[Problem], splits: Mapping[str, Sequence[Problem]], null: Mapping[str, Answered], count: int
) -> Iterator[Finding]:
    """What the answer of the nearest training problem is worth, on every split but training itself."""
    asked = {
        split: spaced(problems, count) for split, problems in splits.items() if split != TRAIN and len(problems) > 0
    }
    questions = [problem.question for few in asked.values() for problem in few]
    rows = iter(nearest([problem.question for problem in train], questions))
    for split, few in asked.items():
        said = [f"The answer is {train[next(rows)].answer}." for _ in few]
        pairs = zip(few, said, strict=True)
        verdicts = list(grade_all(Question(p.kind, p.answer, text, p.choices) for p, text in pairs))
        right = stats.wilson(sum(verdict.correct for verdict in verdicts), len(verdicts))
        other = Null(name="majority", **stats.wilson(*null[split].counts())._asdict())
        yield _finding(NEIGHBOUR, f"{split} accuracy", right, len(few), other)


def _finding(subject: str, metric: str, measured: Interval, n: int, null: Null) -> Finding:
    return Finding(
        lens=LENS, subject=subject, reference="", layer=None, module="", position="", metric=metric, n=n,
        nulls=(null,), **measured._asdict(),
    )  # fmt: skip
