"""Ridge probes: a linear map from vectors to labels, and how its strength is chosen. Knows arrays and nothing else.

A probe minimises |Y − X W|² + strength · |W|² on standardised rows, with an intercept. scikit-learn's `Ridge` solves
one strength at a time and copies all labels each time; here the products of a fold serve every strength.

Legend: N rows, D width, M outputs of all probes of a cell, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from stillroom.errors import DataError

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
STRENGTHS = (1.0, 100.0, 10_000.0)
FOLDS = 3


class Probe(NamedTuple):
    """An affine map of rows (N, D) to outputs (N, M)."""

    mean_D: Floats
    scale_D: Floats
    weights_DM: Floats
    offset_M: Floats
    strength: float

    def scores(self, rows_ND: Floats) -> Floats:
        return np.asarray((rows_ND - self.mean_D) / self.scale_D @ self.weights_DM + self.offset_M)


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
    mean_D, scale_D = rows_ND.mean(0), rows_ND.std(0)
    scale_D = np.where(scale_D > 0, scale_D, 1.0)
    rows_ND = (rows_ND - mean_D) / scale_D
    strength = strengths[len(strengths) // 2]
    if (folds := min(FOLDS, len(set(groups_N)))) > 1:
        from sklearn.model_selection import GroupKFold  # takes a second to import

        parts = GroupKFold(folds).split(rows_ND, groups=list(groups_N))
        told = [_errors(rows_ND, targets_NM, strengths, *part) for part in parts]
        strength = strengths[int(np.sum(told, axis=0).argmin())]
    products = _products(rows_ND, targets_NM)
    weights_DM = products.weights(strength)
    return Probe(mean_D, scale_D, weights_DM, products.offset_M - products.centre_D @ weights_DM, strength)


class Products(NamedTuple):
    """What rows and targets come to in the normal equations, about their means."""

    centre_D: Floats
    offset_M: Floats
    gram_DD: Floats
    shared_DM: Floats

    def weights(self, strength: float) -> Floats:
        ridged_DD = self.gram_DD + strength * np.eye(len(self.gram_DD))
        return np.asarray(linalg.solve(ridged_DD, self.shared_DM, assume_a="pos"))


def _products(rows_ND: Floats, targets_NM: Floats) -> Products:
    centre_D, offset_M = rows_ND.mean(0), targets_NM.mean(0)
    rows_ND = rows_ND - centre_D
    return Products(centre_D, offset_M, rows_ND.T @ rows_ND, rows_ND.T @ targets_NM)


def _errors(
    rows_ND: Floats, targets_NM: Floats, strengths: Sequence[float], learned: Labels, held: Labels
) -> NDArray[np.float64]:
    """The squared error on the rows that are held out, for each strength."""
    products = _products(rows_ND[learned], targets_NM[learned])
    asked_ND, left_NM = rows_ND[held] - products.centre_D, targets_NM[held] - products.offset_M
    return np.array([np.square(asked_ND @ products.weights(s) - left_NM).sum() for s in strengths])
