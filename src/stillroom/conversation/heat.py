"""A thought as a heat map: blue for negative, grey for zero, red for positive."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

ZERO, NEGATIVE, POSITIVE = (200, 200, 200), (33, 92, 175), (190, 24, 43)


def scale(rows: Iterable[Sequence[float]]) -> float:
    """The size at which a colour is full: 98 of 100 coordinates are smaller, so that a few outliers do not make all
    others grey."""
    sizes = sorted(abs(value) for row in rows for value in row)
    return (sizes[int(0.98 * (len(sizes) - 1))] or sizes[-1] or 1.0) if sizes else 1.0


def folded(values: Sequence[float], cells: int) -> list[float]:
    """At most so many cells: of neighbours that share one the strongest is shown, since their mean would cancel."""
    if len(values) <= cells:
        return list(values)
    edges = [i * len(values) // cells for i in range(cells + 1)]
    return [max(values[a:b], key=abs) for a, b in pairwise(edges)]


def colour(value: float, full: float) -> tuple[int, int, int]:
    """Red, green, blue, 0 to 255."""
    share = min(1.0, abs(value) / full)
    end = POSITIVE if value > 0 else NEGATIVE
    red, green, blue = (round(zero + share * (far - zero)) for zero, far in zip(ZERO, end, strict=True))
    return red, green, blue
