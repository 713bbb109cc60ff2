"""Linear probes: can a value be read off the residual stream by a map that is fitted for it, and would anything do?

Ridge regression (scikit-learn) from the standardised residual stream of the silent text to one-hot values, all values
at once; its strength is chosen by cross-validation in which no problem's skeleton stands on both sides. Probes are
fitted on training problems, layer and place are chosen on validation problems, and accuracy is told on test problems.

What has to be beaten stands beside every chosen probe: the commonest value; a control task (Hewitt & Liang 2019,
arXiv 1909.03368), in which every operand of the step has a label of its own, drawn once from the values (accuracy minus
the control's is the *selectivity*); shuffled labels; the same place in the base and in the untrained twin; a probe of
the one-hot input; and a probe of the one-hot answer, for values that are not the answer.

scikit-learn is imported where it is used: it takes a second.

Legend: L layers, P places, B problems, N rows, D width, K classes, M outputs of all probes of a cell.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from stillroom.config import Config
from stillroom.errors import DataError
from stillroom.lenses import ledger
from stillroom.lenses.ledger import Candidates, Entry, candidates, truth
from stillroom.lenses.logit_lens import deepest
from stillroom.lenses.reading import NUMBER, Silent, read_silent
from stillroom.lenses.selection import CHOSEN, choose, corrected, invalid
from stillroom.lenses.subjects import BASE, Subjects
from stillroom.lenses.twins import random_twin
from stillroom.records import Finding, Null, Problem
from stillroom.stats import bootstrap_mean, sign_test, wilson
from stillroom.students import Student

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
STRENGTHS = (1.0, 100.0, 10_000.0)
FOLDS = 3
CURVE = (8, 4, 2)
"""The learning curve's parts of the training problems: an eighth, a quarter, a half."""


class ProbesConfig(Config):
    name: Literal["probes"] = "probes"
    batch_size: int = Field(64, ge=1)
    problems: int = Field(1000, ge=1)
    """How many training problems probes are fitted on; more than the network is wide, or there is no measurement."""
    seed: int = 0


class Probe(NamedTuple):
    """An affine map of rows (N, D) to outputs (N, M)."""

    mean_D: Floats
    scale_D: Floats
    ridge: Any

    def scores(self, rows_ND: Floats) -> Floats:
        return np.asarray(self.ridge.predict((rows_ND - self.mean_D) / self.scale_D)).reshape(len(rows_ND), -1)


def one_hot(labels_N: Labels, classes: int) -> Floats:
    """(N, K); a label of −1 is a row of zeros."""
    rows = np.zeros((len(labels_N), classes))
    known = labels_N >= 0
    rows[np.flatnonzero(known), labels_N[known]] = 1
    return rows


def fit(rows_ND: Floats, targets_NM: Floats, groups_N: Sequence[str], strengths: Sequence[float] = STRENGTHS) -> Probe:
    """A ridge probe, its strength chosen by cross-validation over groups (the first of equals; without groups to hold
    out, the middle one).

    Raises `DataError` for rows or targets that are not finite and where there are no more rows than dimensions.
    """
    if not (np.isfinite(rows_ND).all() and np.isfinite(targets_NM).all()):
        raise DataError("a probe was given NaN or infinity; look for the layer where they begin")
    if len(rows_ND) <= rows_ND.shape[1]:
        raise DataError(
            f"{len(rows_ND)} samples for {rows_ND.shape[1]} dimensions: a probe would fit anything; give it more"
        )
    from sklearn.model_selection import GroupKFold

    mean_D, scale_D = rows_ND.mean(0), rows_ND.std(0)
    scale_D = np.where(scale_D > 0, scale_D, 1.0)
    rows_ND = (rows_ND - mean_D) / scale_D
    strength = strengths[len(strengths) // 2]
    if (folds := min(FOLDS, len(set(groups_N)))) > 1:
        parts = list(GroupKFold(folds).split(rows_ND, groups=list(groups_N)))
        strength = min(strengths, key=lambda s: sum(_error(rows_ND, targets_NM, s, *part) for part in parts))
    return Probe(mean_D, scale_D, _ridge(rows_ND, targets_NM, strength))


def _ridge(rows_ND: Floats, targets_NM: Floats, strength: float) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=strength, solver="cholesky").fit(rows_ND, targets_NM)


def _error(rows_ND: Floats, targets_NM: Floats, strength: float, learned: Labels, held: Labels) -> float:
    guess = _ridge(rows_ND[learned], targets_NM[learned], strength).predict(rows_ND[held])
    return float(np.square(guess.reshape(len(held), -1) - targets_NM[held]).sum())


class Targets(NamedTuple):
    """What the probes of one cell are fitted to: for every step the value, then its control; K classes each."""

    classes: int
    values_SB: Mapping[str, Labels]
    """By split, (S, B): the index of each step's value, −1 where it is none of the classes."""
    controls_SB: Mapping[str, Labels]

    def one_hot(self, split: str) -> Floats:
        """(B, 2 S K)."""
        labels = [*self.values_SB[split], *self.controls_SB[split]]
        return np.concatenate([one_hot(row, self.classes) for row in labels], axis=1)


def operand(problem: Problem, step: int) -> str:
    """The type of a control task: the last number of the step's expression, which a place may know by itself."""
    return next(reversed(NUMBER.findall(problem.steps[step].expression)), "")


def targets(student: Student, splits: Mapping[str, Sequence[Problem]], among: Candidates, seed: int) -> Targets:
    """Labels of all splits; a control label is drawn once for every operand, from the training problems' values."""
    places = {v: among.place(v, student) for v in {s.value for rows in splits.values() for p in rows for s in p.steps}}
    steps = range(len(splits["test"][0].steps))
    values = {
        split: np.array([[-1 if (k := places[p.steps[s].value]) is None else k for p in problems] for s in steps])
        for split, problems in splits.items()
    }
    rng = np.random.default_rng(seed)
    controls: dict[str, list[Labels]] = {split: [] for split in splits}
    for step in steps:
        kinds = sorted({operand(p, step) for problems in splits.values() for p in problems})
        drawn = dict(zip(kinds, rng.choice(values["train"][step], len(kinds)), strict=True))
        for split, problems in splits.items():
            controls[split].append(np.array([drawn[operand(p, step)] for p in problems]))
    return Targets(len(among.values), values, {split: np.stack(rows) for split, rows in controls.items()})


def cells_of(silent: Silent) -> list[tuple[int, str]]:
    return [(layer, place) for layer in range(len(silent.stream_LPBD)) for place in silent.places]


def rows_of(silent: Silent, cell: tuple[int, str]) -> Floats:
    return np.asarray(silent.stream_LPBD[cell[0], silent.places.index(cell[1])].double().numpy())


def inputs(problems: Sequence[Problem], known: Sequence[Problem], steps: int) -> Floats:
    """(B, D) one-hot rows of what the question says: its numbers by their place, and the steps' operators."""

    def words(problem: Problem) -> list[str]:
        numbers = [f"{i} {number}" for i, number in enumerate(NUMBER.findall(problem.question))]
        signs = [f"{i} {sign}" for i in range(steps) for sign in "+-*/" if f" {sign} " in problem.steps[i].expression]
        return numbers + signs

    places = {word: i for i, word in enumerate(sorted({word for problem in known for word in words(problem)}))}
    rows = np.zeros((len(problems), len(places)))
    for row, problem in enumerate(problems):
        rows[row, [places[word] for word in words(problem) if word in places]] = 1
    return rows


def answers(problems: Sequence[Problem], known: Sequence[Problem]) -> Floats:
    """(B, D) one-hot rows of the answer."""
    places = {answer: i for i, answer in enumerate(sorted({p.answer for p in known}))}
    return one_hot(np.array([places.get(p.answer, -1) for p in problems]), len(places))


def look(config: ProbesConfig, subjects: Subjects) -> list[Finding]:
    if not subjects.problems.get("train"):
        return []
    splits = deepest(subjects, "train", "validation", "test")
    if not splits:
        return []
    spaced = np.linspace(0, len(splits["train"]) - 1, min(len(splits["train"]), config.problems)).astype(int)
    splits["train"] = [splits["train"][i] for i in spaced]
    findings: list[Finding] = []
    base = {split: read_silent(subjects.students[BASE], rows, config.batch_size) for split, rows in splits.items()}
    for name, student in subjects.readers():
        if len(splits["train"]) <= (width := base["test"].stream_LPBD.shape[-1]):
            reason = f"{len(splits['train'])} training problems for {width} dimensions: a probe would fit anything"
            findings.append(invalid(reason, **_address(name, None, "", "value accuracy"), n=len(splits["train"])))
            continue
        own = base if name == BASE else {s: read_silent(student, rows, config.batch_size) for s, rows in splits.items()}
        fresh = random_twin(student, config.seed)
        blank = {split: read_silent(fresh, splits[split], config.batch_size) for split in ("train", "test")}
        findings += Bench(name, student, splits, own, base, blank, config.seed).findings()
    return findings


class Bench:
    """All probes of one student."""

    def __init__(
        self,
        name: str,
        student: Student,
        splits: Mapping[str, Sequence[Problem]],
        own: Mapping[str, Silent],
        base: Mapping[str, Silent],
        blank: Mapping[str, Silent],
        seed: int,
    ) -> None:
        self.name, self.student, self.splits, self.own, self.seed = name, student, splits, own, seed
        self.references = {"base": base, "untrained": blank} if name != BASE else {"untrained": blank}
        self.among = candidates(student, [p for rows in splits.values() for p in rows])
        self.targets = targets(student, splits, self.among, seed)
        self.steps = len(splits["test"][0].steps)
        self.cells = cells_of(own["test"])
        self.groups = [p.skeleton or p.id for p in splits["train"]]
        self.known: dict[tuple[int, tuple[int, str]], dict[str, Floats]] = {}
        self.fitted_to = self.targets.one_hot("train")

    def findings(self) -> list[Finding]:
        scores: dict[str, list[Floats]] = {"validation": [], "test": []}
        for cell in self.cells:
            probe = fit(rows_of(self.own["train"], cell), self.fitted_to, self.groups)
            for split, kept in scores.items():
                kept.append(self._split(probe.scores(rows_of(self.own[split], cell))))
        held_CSBK = {split: np.stack(kept) for split, kept in scores.items()}
        grid: list[Finding] = []
        chosen: list[Finding] = []
        for step in range(self.steps):
            if len(set(self.targets.values_SB["train"][step].tolist())) < 2:
                reason = f"value {step + 1} is the same in all training problems: one class tells nothing"
                address = _address(self.name, None, "", f"value {step + 1} accuracy")
                chosen.append(invalid(reason, **address, n=len(self.groups)))
                continue
            right_CB = self._right(held_CSBK["test"], "test", step)
            grid += self._grid(step, right_CB, self._right(held_CSBK["test"], "test", step + self.steps))
            best = choose(self._right(held_CSBK["validation"], "validation", step).mean(axis=1))
            chosen += self._chosen(step, best, held_CSBK["test"][best])
            chosen += self._entered(step, held_CSBK)
        return [*corrected(grid), *chosen]

    def _split(self, scores_BM: Floats) -> Floats:
        """(2 S, B, K): the outputs of each probe of a cell."""
        return np.moveaxis(scores_BM.reshape(len(scores_BM), 2 * self.steps, -1), 1, 0)

    def _labels(self, split: str, target: int) -> Labels:
        of = self.targets.values_SB if target < self.steps else self.targets.controls_SB
        return np.asarray(of[split][target % self.steps])

    def _right(self, scores_CSBK: Floats, split: str, target: int) -> NDArray[np.bool_]:
        """(C, B): whether the highest output is the label."""
        return np.asarray(scores_CSBK[:, target].argmax(-1) == self._labels(split, target))

    def _majority(self, step: int) -> Null:
        learned, asked = self._labels("train", step), self._labels("test", step)
        commonest = np.bincount(learned[learned >= 0], minlength=1).argmax()
        return Null(name="commonest value", **wilson(int((asked == commonest).sum()), len(asked))._asdict())

    def _grid(self, step: int, right_CB: NDArray[np.bool_], control_CB: NDArray[np.bool_]) -> Iterator[Finding]:
        p_C = sign_test((right_CB & ~control_CB).sum(1), (control_CB & ~right_CB).sum(1)).tolist()
        common = self._majority(step)
        for cell, right, control, p in zip(self.cells, right_CB, control_CB, p_C, strict=True):
            nulls = (Null(name="control task", **wilson(int(control.sum()), len(control))._asdict()), common)
            found = wilson(int(right.sum()), len(right))._asdict()
            metric = f"value {step + 1} accuracy"
            yield Finding(**_address(self.name, *cell, metric), n=len(right), nulls=nulls, p=p, **found)

    def _chosen(self, step: int, cell: int, scores_SBK: Floats) -> Iterator[Finding]:
        """The chosen probe beside all that it has to beat, its selectivity and its learning curve."""
        n = len(self.splits["test"])
        right, control = (self._right(scores_SBK[None], "test", t)[0] for t in (step, step + self.steps))
        nulls = [Null(name="control task", **wilson(int(control.sum()), n)._asdict()), self._majority(step)]
        for name, scores_BK in self._rivals(step, self.cells[cell]).items():
            hits = int((scores_BK.argmax(-1) == self._labels("test", step)).sum())
            nulls.append(Null(name=name, **wilson(hits, n)._asdict()))
        p = float(sign_test((right & ~control).sum(), (control & ~right).sum()))
        found = wilson(int(right.sum()), n)._asdict()
        address = _address(self.name, *self.cells[cell], f"value {step + 1} accuracy{CHOSEN}")
        yield Finding(**address, n=n, nulls=tuple(nulls), p=p, **found)
        gained = bootstrap_mean(right.astype(float) - control.astype(float), self.seed)
        zero = Null(name="as good as the control task", value=0.0, low=0.0, high=0.0)
        address = _address(self.name, *self.cells[cell], f"value {step + 1} selectivity{CHOSEN}")
        yield Finding(**address, n=n, nulls=(zero,), **gained._asdict())
        yield from self._curve(step, self.cells[cell])

    def _curve(self, step: int, cell: tuple[int, str]) -> Iterator[Finding]:
        """Accuracy of the chosen probe when it is fitted on a part of the problems; what is too few is marked so."""
        rows_ND, n = rows_of(self.own["train"], cell), len(self.splits["test"])
        for part in CURVE:
            few = slice(0, None, part)
            address = _address(self.name, *cell, f"value {step + 1} accuracy, 1/{part} of the samples")
            try:
                scores_BK = self._fitted(step, rows_ND[few], rows_of(self.own["test"], cell), few)
            except DataError as error:
                yield invalid(str(error), **address, n=len(rows_ND[few]))
                continue
            hits = int((scores_BK.argmax(-1) == self._labels("test", step)).sum())
            yield Finding(**address, n=n, nulls=(self._majority(step),), **wilson(hits, n)._asdict())

    def _fitted(
        self, step: int, rows_ND: Floats, asked_BD: Floats, part: slice = slice(None), shuffled: bool = False
    ) -> Floats:
        """(B, K): a probe for one step's value alone, from other rows than the cells'."""
        labels = self._labels("train", step)[part]
        if shuffled:
            labels = np.random.default_rng(self.seed).permutation(labels)
        return fit(rows_ND, one_hot(labels, self.targets.classes), self.groups[part]).scores(asked_BD)

    def _rivals(self, step: int, cell: tuple[int, str]) -> dict[str, Floats]:
        """(B, K) by name: the references to beat at a cell; a place that a reference lacks is its question's end."""
        if (step, cell) not in self.known:
            self.known[step, cell] = self._beside(step, cell)
        return self.known[step, cell]

    def _beside(self, step: int, cell: tuple[int, str]) -> dict[str, Floats]:
        train, test = self.splits["train"], self.splits["test"]
        rivals = {
            "shuffled labels": self._fitted(
                step, rows_of(self.own["train"], cell), rows_of(self.own["test"], cell), shuffled=True
            )
        }
        for name, held in self.references.items():
            layer = min(cell[0], len(held["test"].stream_LPBD) - 1)
            there = (layer, cell[1] if cell[1] in held["test"].places else "question end")
            rivals[name] = self._fitted(step, rows_of(held["train"], there), rows_of(held["test"], there))
        outside = {"input alone": (inputs(train, train, self.steps), inputs(test, train, self.steps))}
        if step < self.steps - 1:
            outside["answer alone"] = answers(train, train), answers(test, train)
        for name, (learned_ND, asked_BD) in outside.items():
            if len(learned_ND) > learned_ND.shape[1]:
                rivals[name] = self._fitted(step, learned_ND, asked_BD)
        return rivals

    def _entered(self, step: int, held_CSBK: Mapping[str, Floats]) -> list[Finding]:
        """The ledger's rows; all references are asked where the ledger's own choice falls."""
        told = {split: truth(self.student, self.splits[split], step, self.among) for split in held_CSBK}
        scores = {split: torch.from_numpy(held[:, step][:, told[split].rows]) for split, held in held_CSBK.items()}
        seen, asked = told["validation"], told["test"]
        if not seen.rows or not asked.rows:
            return []
        claim = Entry("probes", self.name, step, self.cells, scores["validation"], scores["test"], seen, asked)
        found: list[Finding] = []
        for region in ledger.regions(self.cells):
            mine = claim.within(region)
            rivals = self._rivals(step, mine.cells[mine.best()])
            beside = {name: torch.from_numpy(told_BK[asked.rows])[None] for name, told_BK in rivals.items()}
            found += ledger.enter(mine._replace(rivals=beside))
        return found


def _address(name: str, layer: int | None, place: str, metric: str) -> dict[str, Any]:
    return {
        "lens": "probes", "subject": name, "reference": "" if name == BASE else BASE, "layer": layer,
        "module": "residual stream", "position": place, "metric": metric,
    }  # fmt: skip
