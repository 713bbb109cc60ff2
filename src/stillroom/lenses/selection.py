"""Honest selection: a cell is chosen on validation problems and reported on test problems; a grid pays for its size.

Legend: G cells of a grid, N problems.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stillroom.errors import DataError
from stillroom.lenses.subjects import BASE
from stillroom.records import Finding
from stillroom.stats import benjamini_hochberg, holm

Floats = NDArray[np.float64]
CHOSEN = ", chosen on validation"


def choose(validation_G: Floats) -> int:
    """The cell that is best on validation problems, the first of equals. Raises `DataError` where one is NaN."""
    if not validation_G.size or not np.isfinite(validation_G).all():
        raise DataError("a cell cannot be chosen from none, nor from measures that are NaN: leave such cells out first")
    return int(np.argmax(validation_G))


def corrected(findings: Sequence[Finding], method: Literal["bh", "holm"] = "bh") -> list[Finding]:
    """The findings of one grid with `adjusted` beside each `p`; those without a p pass through."""
    tested = [f.p for f in findings if f.p is not None]
    adjusted = iter(benjamini_hochberg(tested) if method == "bh" else holm(tested))
    return [f if f.p is None else f.model_copy(update={"adjusted": next(adjusted)}) for f in findings]


def in_stream(
    lens: str, subject: str, layer: int | None, position: str, metric: str, reference: str | None = None
) -> dict[str, Any]:
    """The address of a finding in the residual stream; the reference is the base unless said."""
    known = ("" if subject == BASE else BASE) if reference is None else reference
    address = {"lens": lens, "subject": subject, "reference": known, "layer": layer}
    return {**address, "module": "residual stream", "position": position, "metric": metric}


def invalid(reason: str, **address: Any) -> Finding:
    """A finding that is no measurement, and why."""
    nan = float("nan")
    return Finding(**address, value=nan, low=nan, high=nan, nulls=(), invalid=reason)
