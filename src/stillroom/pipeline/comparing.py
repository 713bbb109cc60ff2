"""The last stages of a sweep: the scores of all its cells side by side."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from stillroom import report
from stillroom.evaluation import comparing
from stillroom.report import overview
from stillroom.store import Stage


def comparison(where: str, plans: Mapping[str, Sequence[Stage]]) -> Iterator[Stage]:
    """A `comparison` of the cells' scores and a page that shows it."""
    parents = {
        f"{role} {cell}": next(stage for stage in stages if stage.stage == role)
        for cell, stages in plans.items()
        for role in ("scores", "problems")
    }
    config = comparing.ComparisonConfig(cells=tuple(plans))
    run = partial(comparing.make_comparison, config)
    stage = Stage("comparison", "comparison", comparing.VERSION, config.model_dump(mode="json"), parents, run)
    yield stage
    page = overview.OverviewConfig(recipe=where)
    show = partial(overview.make_overview, page)
    yield Stage("report", "overview", report.VERSION, page.model_dump(mode="json"), {"comparison": stage}, show)
