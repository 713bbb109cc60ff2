"""Linear probes: can a value be read off the residual stream by a map that is fitted for it, and would anything do?

Ridge regression (see `probing`) from the standardised residual stream of the silent text to one-hot labels, all labels
at once: the value and the operation of every step, in problems of one number of steps; how many steps there are, and
whether one is the last, in problems of all. Strength is chosen by cross-validation in which no problem's skeleton
stands on both sides. Probes are fitted on training problems, layer and place are chosen on validation problems, and
accuracy is told on test problems.

What has to be beaten stands beside every chosen probe: the commonest label; a control task (accuracy minus the
control's is the *selectivity*); shuffled labels; the same place in the base and in the untrained twin; a probe of the
one-hot input; and a probe of the one-hot answer, for what is not the answer.

Legend: B problems, C cells (layer and place), D width, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.evaluation import spaced
from stillroom.lenses import ledger
from stillroom.lenses.labels import Splits, Target, answers, inputs, lengths, operations, values
from stillroom.lenses.ledger import Candidates, Entry, candidates, truth
from stillroom.lenses.logit_lens import deepest
from stillroom.lenses.probing import Floats, Labels, fit, one_hot
from stillroom.lenses.reading import Silent, read_silent
from stillroom.lenses.selection import CHOSEN, choose, corrected, in_stream, invalid
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.lenses.twins import random_twin
from stillroom.records import Finding, Null
from stillroom.stats import bootstrap_mean, sign_test, wilson
from stillroom.students import Student

CURVE = (8, 4, 2)
"""The learning curve's parts of the training problems: an eighth, a quarter, a half."""
ASKED = ("train", "validation", "test")


class ProbesConfig(Config):
    name: Literal["probes"] = "probes"
    batch_size: int = Field(64, ge=1)
    problems: int = Field(1000, ge=1)
    """How many training problems probes are fitted on; more than the network is wide, or there is no measurement."""
    lengths: int = Field(300, ge=1)
    """How many problems of each split are asked how many steps they have."""
    seed: int = 0


def look(config: ProbesConfig, subjects: Subjects) -> list[Finding]:
    """Probes of every student but twins; nothing where no training problem has steps."""
    splits = deepest(subjects, *ASKED) if subjects.problems.get("train") else {}
    if not splits:
        return []
    splits["train"] = spaced(splits["train"], config.problems)
    findings = [*_bench(config, subjects, splits, steps_alike=True)]
    mixed = {split: [p for p in subjects.problems[split] if p.steps] for split in ASKED}
    if len({len(p.steps) for p in mixed["train"]}) > 1:
        mixed = {split: spaced(rows, config.lengths) for split, rows in mixed.items()}
        findings += _bench(config, subjects, mixed, steps_alike=False)
    return findings


def _bench(config: ProbesConfig, subjects: Subjects, splits: Splits, steps_alike: bool) -> Iterator[Finding]:
    """All students on the same problems."""

    def read(student: Student) -> dict[str, Silent]:
        return {split: read_silent(student, rows, config.batch_size) for split, rows in splits.items()}

    base = read(subjects.students[BASE])
    for name, student in subjects.readers():
        own = base if name == BASE else read(student)
        if len(splits["train"]) <= (width := own["test"].stream_LPBD.shape[-1]):
            reason = f"{len(splits['train'])} training problems for {width} dimensions: a probe would fit anything"
            metric = "value accuracy" if steps_alike else "number of steps accuracy"
            yield invalid(reason, **in_stream("probes", name, None, "", metric), n=len(splits["train"]))
            continue
        fresh = random_twin(student, config.seed)
        blank = {split: read_silent(fresh, splits[split], config.batch_size) for split in ("train", "test")}
        references = {"base": base, "untrained": blank} if name != BASE else {"untrained": blank}
        among = candidates(student, [p for rows in splits.values() for p in rows])
        if steps_alike:
            asked = [*values(student, splits, among, config.seed), *operations(splits, config.seed)]
        else:
            asked = lengths(splits, config.seed)
        yield from Bench(name, student, splits, own, references, asked, among, config.seed).findings()


class Bench:
    """All probes of one student on one set of problems."""

    def __init__(
        self,
        name: str,
        student: Student,
        splits: Splits,
        own: Mapping[str, Silent],
        references: Mapping[str, Mapping[str, Silent]],
        asked: Sequence[Target],
        among: Candidates,
        seed: int,
    ) -> None:
        self.name, self.student, self.splits, self.own, self.seed = name, student, splits, own, seed
        self.references, self.among = references, among
        self.one_class = [t for t in asked if len({*t.labels["train"].tolist()}) < 2]
        self.targets = [t for t in asked if len({*t.labels["train"].tolist()}) >= 2]
        self.cells = cells_of(own["test"])
        self.groups = [p.skeleton or p.id for p in splits["train"]]
        self.known: dict[tuple[str, tuple[int, str]], dict[str, Floats]] = {}

    def findings(self) -> Iterator[Finding]:
        """The grid of all cells with corrected p, the chosen cells with what they have to beat, the ledger's rows."""
        for target in self.one_class:
            reason = f"{target.name} is the same in all training problems: one class tells nothing"
            yield invalid(
                reason, **in_stream("probes", self.name, None, "", f"{target.name} accuracy"), n=len(self.groups)
            )
        grid: list[Finding] = []
        chosen: list[Finding] = []
        for target, (scores, controls) in zip(self.targets, self._scores(), strict=True):
            right = {split: right_in(scores[split], target.labels[split]) for split in scores}
            control_CB = right_in(controls["test"], target.controls["test"])
            grid += self._grid(target, right["test"], control_CB)
            best = choose(right["validation"].mean(axis=1))
            chosen += self._chosen(target, self.cells[best], right["test"][best], control_CB[best])
            chosen += self._entered(target, scores)
        yield from (*corrected(grid), *chosen)

    def _scores(self) -> list[tuple[dict[str, Floats], dict[str, Floats]]]:
        """For each target the outputs (C, B, K) of its probe and of its control's, by split."""
        labels = [(t.labels["train"], t.classes) for t in self.targets]
        labels += [(t.controls["train"], t.classes) for t in self.targets]
        if not labels:
            return []
        fitted_to = np.concatenate([one_hot(*pair) for pair in labels], axis=1)
        ends = np.cumsum([classes for _, classes in labels])[:-1]
        found: dict[str, list[list[Floats]]] = {"validation": [], "test": []}
        for cell in self.cells:
            probe = fit(rows_of(self.own["train"], cell), fitted_to, self.groups)
            for split, kept in found.items():
                kept.append(np.split(probe.scores(rows_of(self.own[split], cell)), ends, axis=1))
        count = len(self.targets)

        def stacked(i: int) -> dict[str, Floats]:
            return {split: np.stack([told[i] for told in kept]) for split, kept in found.items()}

        return [(stacked(i), stacked(count + i)) for i in range(count)]

    def _commonest(self, target: Target) -> Null:
        learned, asked = target.labels["train"], target.labels["test"]
        commonest = np.bincount(learned[learned >= 0], minlength=1).argmax()
        return Null(name="commonest value", **wilson(int((asked == commonest).sum()), len(asked))._asdict())

    def _grid(self, target: Target, right_CB: NDArray[np.bool_], control_CB: NDArray[np.bool_]) -> Iterator[Finding]:
        p_C = sign_test((right_CB & ~control_CB).sum(1), (control_CB & ~right_CB).sum(1)).tolist()
        common = self._commonest(target)
        for cell, right, control, p in zip(self.cells, right_CB, control_CB, p_C, strict=True):
            nulls = (Null(name="control task", **wilson(int(control.sum()), len(control))._asdict()), common)
            found = wilson(int(right.sum()), len(right))._asdict()
            address = in_stream("probes", self.name, *cell, f"{target.name} accuracy")
            yield Finding(**address, n=len(right), nulls=nulls, p=p, **found)

    def _chosen(
        self, target: Target, cell: tuple[int, str], right: NDArray[np.bool_], control: NDArray[np.bool_]
    ) -> Iterator[Finding]:
        """The chosen probe beside all that it has to beat, its selectivity and its learning curve."""
        n = len(right)
        nulls = [Null(name="control task", **wilson(int(control.sum()), n)._asdict()), self._commonest(target)]
        for name, scores_BK in self._rivals(target, cell).items():
            hits = int((scores_BK.argmax(-1) == target.labels["test"]).sum())
            nulls.append(Null(name=name, **wilson(hits, n)._asdict()))
        p = float(sign_test((right & ~control).sum(), (control & ~right).sum()))
        found = wilson(int(right.sum()), n)._asdict()
        address = in_stream("probes", self.name, *cell, f"{target.name} accuracy{CHOSEN}")
        yield Finding(**address, n=n, nulls=tuple(nulls), p=p, **found)
        gained = bootstrap_mean(right.astype(float) - control.astype(float), self.seed)
        zero = Null(name="as good as the control task", value=0.0, low=0.0, high=0.0)
        address = in_stream("probes", self.name, *cell, f"{target.name} selectivity{CHOSEN}")
        yield Finding(**address, n=n, nulls=(zero,), **gained._asdict())
        yield from self._curve(target, cell)

    def _curve(self, target: Target, cell: tuple[int, str]) -> Iterator[Finding]:
        """Accuracy of the chosen probe when it is fitted on a part of the problems; what is too few is marked so."""
        rows_ND, n = rows_of(self.own["train"], cell), len(self.splits["test"])
        for part in CURVE:
            few = slice(0, None, part)
            address = in_stream("probes", self.name, *cell, f"{target.name} accuracy, 1/{part} of the samples")
            try:
                scores_BK = self._fitted(target, rows_ND[few], rows_of(self.own["test"], cell), few)
            except DataError as error:
                yield invalid(str(error), **address, n=len(rows_ND[few]))
                continue
            hits = int((scores_BK.argmax(-1) == target.labels["test"]).sum())
            yield Finding(**address, n=n, nulls=(self._commonest(target),), **wilson(hits, n)._asdict())

    def _fitted(
        self, target: Target, rows_ND: Floats, asked_BD: Floats, part: slice = slice(None), shuffled: bool = False
    ) -> Floats:
        """(B, K): a probe for one target alone, from other rows than the cells'."""
        labels = target.labels["train"][part]
        if shuffled:
            labels = np.random.default_rng(self.seed).permutation(labels)
        return fit(rows_ND, one_hot(labels, target.classes), self.groups[part]).scores(asked_BD)

    def _rivals(self, target: Target, cell: tuple[int, str]) -> dict[str, Floats]:
        """(B, K) by name: the references to beat at a cell; a place that a reference lacks is its question's end."""
        if (target.name, cell) not in self.known:
            self.known[target.name, cell] = self._beside(target, cell)
        return self.known[target.name, cell]

    def _beside(self, target: Target, cell: tuple[int, str]) -> dict[str, Floats]:
        train, test = self.splits["train"], self.splits["test"]
        mine = rows_of(self.own["train"], cell), rows_of(self.own["test"], cell)
        rivals = {"shuffled labels": self._fitted(target, *mine, shuffled=True)}
        for name, held in self.references.items():
            layer = min(cell[0], len(held["test"].stream_LPBD) - 1)
            there = (layer, cell[1] if cell[1] in held["test"].places else "question end")
            rivals[name] = self._fitted(target, rows_of(held["train"], there), rows_of(held["test"], there))
        outside = {"input alone": (inputs(train, train), inputs(test, train))}
        if not target.is_answer:
            outside["answer alone"] = answers(train, train), answers(test, train)
        for name, (learned_ND, asked_BD) in outside.items():
            if len(learned_ND) > learned_ND.shape[1]:
                rivals[name] = self._fitted(target, learned_ND, asked_BD)
        return rivals

    def _entered(self, target: Target, scores: Mapping[str, Floats]) -> Iterator[Finding]:
        """The ledger's rows of a value; all references are asked where the ledger's own choice falls."""
        if target.step is None:
            return
        seen, asked = (truth(self.student, self.splits[split], target.step, self.among) for split in scores)
        if not seen.rows or not asked.rows:
            return
        held, told = (
            torch.from_numpy(rows[:, of.rows]) for rows, of in zip(scores.values(), (seen, asked), strict=True)
        )
        claim = Entry("probes", self.name, target.step, self.cells, held, told, seen, asked)
        for region in ledger.regions(self.cells):
            mine = claim.within(region)
            rivals = self._rivals(target, mine.cells[mine.best()])
            beside = {name: torch.from_numpy(theirs_BK[asked.rows])[None] for name, theirs_BK in rivals.items()}
            yield from ledger.enter(mine._replace(rivals=beside))


def right_in(scores: Floats, labels_B: Labels) -> NDArray[np.bool_]:
    """(C, B): whether the highest output of (C, B, K) is the label."""
    return np.asarray(scores.argmax(-1) == labels_B)


def cells_of(silent: Silent) -> list[tuple[int, str]]:
    return [(layer, place) for layer in range(len(silent.stream_LPBD)) for place in silent.places]


def rows_of(silent: Silent, cell: tuple[int, str]) -> Floats:
    return np.asarray(silent.stream_LPBD[cell[0], silent.places.index(cell[1])].double().numpy())
