"""Linear probes: can a value be read off the residual stream by a map that is fitted for it, and would anything do?

Ridge regression (see `probing`) from the standardised residual stream of the silent text to one-hot labels, all labels
at once: the value and the operation of every step, in problems of one number of steps; how many steps there are, and
whether one is the last, in problems of all. Strength is chosen by cross-validation in which no problem's skeleton
stands on both sides. Probes are fitted on training problems, layer and place are chosen on validation problems, and
accuracy is told on test problems.

What has to be beaten stands beside every chosen probe, the hardest first: the commonest label; shuffled labels; the
same place in the base and in the untrained twin; a probe of the one-hot input; and a probe of the one-hot answer, for
what is not the answer. Like these, the chosen probe is fitted for its labels alone. Its p is the largest of the paired
sign tests against them: the claim is that it beats them all (an intersection-union test, Berger 1982, which needs no
correction). In the grid of all cells, where the other references would cost a fit each, p is against the commonest
label. *Selectivity*, accuracy minus that of the same probe on a control task (see `labels`), is a measure of its own:
what the probe can learn by heart is nothing that reading has to beat.

Legend: B problems, C cells (layer and place), D width, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.evaluation import spaced
from stillroom.lenses import ledger
from stillroom.lenses.labels import Flags, Splits, Target, answers, inputs, lengths, operations, values
from stillroom.lenses.ledger import Candidates, Entry, candidates, truth
from stillroom.lenses.logit_lens import deepest
from stillroom.lenses.probing import Floats, Labels, fit, one_hot
from stillroom.lenses.selection import CHOSEN, choose, corrected, in_stream, invalid
from stillroom.lenses.silent import Silent, read_silent
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.lenses.twins import random_twin
from stillroom.records import Finding, Null
from stillroom.stats import bootstrap_mean, sign_test, wilson
from stillroom.students import Student

CURVE = (8, 4, 2)
"""The learning curve's parts of the training problems: an eighth, a quarter, a half."""
COMMONEST = "commonest value"
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
        self.one_class = [t for t in asked if t.one_class()]
        self.targets = [t for t in asked if not t.one_class()]
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
        for target, scores in zip(self.targets, self._scores(), strict=True):
            right = {split: right_in(scores[split], target.labels[split]) for split in scores}
            grid += self._grid(target, right["test"])
            cell = self.cells[choose(right["validation"].mean(axis=1))]
            right_B = self._right(target, self._read(target, self.own, cell))
            chosen += self._chosen(target, cell, right_B)
            chosen += self._selective(target, cell, right_B)
            chosen += self._curve(target, cell)
            chosen += self._entered(target, scores)
        yield from (*corrected(grid), *chosen)

    def _scores(self) -> list[dict[str, Floats]]:
        """For each target the outputs (C, B, K) of its probe, by split."""
        if not self.targets:
            return []
        fitted_to = np.concatenate([one_hot(t.labels["train"], t.classes) for t in self.targets], axis=1)
        ends = np.cumsum([t.classes for t in self.targets])[:-1]
        found: dict[str, list[list[Floats]]] = {"validation": [], "test": []}
        for cell in self.cells:
            probe = fit(rows_of(self.own["train"], cell), fitted_to, self.groups)
            for split, kept in found.items():
                kept.append(np.split(probe.scores(rows_of(self.own[split], cell)), ends, axis=1))
        count = range(len(self.targets))
        return [{split: np.stack([told[i] for told in kept]) for split, kept in found.items()} for i in count]

    def _grid(self, target: Target, right_CB: Flags) -> Iterator[Finding]:
        common_B = target.commonest()
        p_C = sign_test((right_CB & ~common_B).sum(1), (common_B & ~right_CB).sum(1)).tolist()
        for cell, right_B, p in zip(self.cells, right_CB, p_C, strict=True):
            yield self._share(cell, f"{target.name} accuracy", right_B, {COMMONEST: common_B}, p)

    def _share(
        self, cell: tuple[int, str], metric: str, right_B: Flags, nulls: Mapping[str, Flags], p: float | None = None
    ) -> Finding:
        """The share of problems in which a probe is right, beside that of each null."""
        n = len(right_B)
        shares = {name: wilson(int(hits_B.sum()), n)._asdict() for name, hits_B in {"": right_B, **nulls}.items()}
        beside = tuple(Null(name=name, **shares[name]) for name in nulls)
        return Finding(**in_stream("probes", self.name, *cell, metric), n=n, nulls=beside, p=p, **shares[""])

    def _chosen(self, target: Target, cell: tuple[int, str], right_B: Flags) -> Iterator[Finding]:
        """The chosen probe beside all that it has to beat, the hardest first, with the p against that one."""
        rivals = {name: self._right(target, scores_BK) for name, scores_BK in self._rivals(target, cell).items()}
        nulls = {COMMONEST: target.commonest(), **rivals}
        p = {name: float(sign_test((right_B & ~n_B).sum(), (n_B & ~right_B).sum())) for name, n_B in nulls.items()}
        hardest = sorted(p, key=lambda name: p[name], reverse=True)
        metric = f"{target.name} accuracy{CHOSEN}"
        yield self._share(cell, metric, right_B, {name: nulls[name] for name in hardest}, p[hardest[0]])

    def _selective(self, target: Target, cell: tuple[int, str], right_B: Flags) -> Iterator[Finding]:
        """Accuracy minus that on the control task, and what the same probe learns of the control task."""
        selectivity, learned = f"{target.name} selectivity{CHOSEN}", f"{target.name} accuracy of the control{CHOSEN}"
        control = target.control()
        if control.one_class():
            for metric in (selectivity, learned):
                reason = f"{target.name}: the control task has one label alone, which tells nothing of the probe"
                yield invalid(reason, **in_stream("probes", self.name, *cell, metric), n=len(right_B))
            return
        hits_B = self._right(control, self._read(control, self.own, cell))
        gained = bootstrap_mean(right_B.astype(float) - hits_B.astype(float), self.seed)
        zero = Null(name="as good as the control task", value=0.0, low=0.0, high=0.0)
        address = in_stream("probes", self.name, *cell, selectivity)
        yield Finding(**address, n=len(right_B), nulls=(zero,), **gained._asdict())
        yield self._share(cell, learned, hits_B, {COMMONEST: control.commonest()})

    def _curve(self, target: Target, cell: tuple[int, str]) -> Iterator[Finding]:
        """Accuracy of the chosen probe when it is fitted on a part of the problems; what is too few is marked so."""
        rows_ND = rows_of(self.own["train"], cell)
        for part in CURVE:
            few = slice(0, None, part)
            metric = f"{target.name} accuracy, 1/{part} of the samples"
            try:
                scores_BK = self._fitted(target, rows_ND[few], rows_of(self.own["test"], cell), few)
            except DataError as error:
                yield invalid(str(error), **in_stream("probes", self.name, *cell, metric), n=len(rows_ND[few]))
                continue
            yield self._share(cell, metric, self._right(target, scores_BK), {COMMONEST: target.commonest()})

    def _right(self, target: Target, scores_BK: Floats) -> Flags:
        return right_in(scores_BK, target.labels["test"])

    def _read(self, target: Target, held: Mapping[str, Silent], cell: tuple[int, str]) -> Floats:
        """(B, K): a probe for one target alone, at a cell of what was read."""
        return self._fitted(target, rows_of(held["train"], cell), rows_of(held["test"], cell))

    def _fitted(self, target: Target, rows_ND: Floats, asked_BD: Floats, part: slice = slice(None)) -> Floats:
        """(B, K): a probe for one target alone, from other rows than the cells'."""
        labels = one_hot(target.labels["train"][part], target.classes)
        return fit(rows_ND, labels, self.groups[part]).scores(asked_BD)

    def _rivals(self, target: Target, cell: tuple[int, str]) -> dict[str, Floats]:
        """(B, K) by name: the references to beat at a cell; a place that a reference lacks is its question's end."""
        if (target.name, cell) not in self.known:
            self.known[target.name, cell] = self._beside(target, cell)
        return self.known[target.name, cell]

    def _beside(self, target: Target, cell: tuple[int, str]) -> dict[str, Floats]:
        train, test = self.splits["train"], self.splits["test"]
        rivals = {"shuffled labels": self._read(target.shuffled(self.seed), self.own, cell)}
        for name, held in self.references.items():
            layer = min(cell[0], len(held["test"].stream_LPBD) - 1)
            there = (layer, cell[1] if cell[1] in held["test"].places else "question end")
            rivals[name] = self._read(target, held, there)
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


def right_in(scores: Floats, labels_B: Labels) -> Flags:
    """(…, B): whether the highest output of (…, B, K) is the label."""
    return np.asarray(scores.argmax(-1) == labels_B)


def cells_of(silent: Silent) -> list[tuple[int, str]]:
    return [(layer, place) for layer in range(len(silent.stream_LPBD)) for place in silent.places]


def rows_of(silent: Silent, cell: tuple[int, str]) -> Floats:
    return np.asarray(silent.stream_LPBD[cell[0], silent.places.index(cell[1])].double().numpy())
