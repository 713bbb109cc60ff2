"""Where the model hub holds a benchmark, and how its rows become ours. The one module that asks the hub for rows.

`datasets` is imported when rows are asked for: reading a local file needs neither it nor a network.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from stillroom.errors import DataError
from stillroom.tasks.benchmarks.rows import Row

TIMEOUT = 20.0
"""Seconds to wait for the hub's first answer."""


def unchanged(row: Row) -> Row:
    return row


class Hub(NamedTuple):
    """A dataset repository. `splits`: from our split to those of the hub that it is made of, in their order."""

    repository: str
    splits: Mapping[str, tuple[str, ...]]
    configs: tuple[str | None, ...] = (None,)
    """Each is loaded; their rows follow one another."""
    convert: Callable[[Row], Row] = unchanged

    @property
    def source(self) -> str:
        return f"hf://datasets/{self.repository}"


def csqa(row: Row) -> Row:
    question = {
        "question_concept": row["question_concept"],
        "choices": options(row["choices"]),
        "stem": row["question"],
    }
    return {"answerKey": row["answerKey"], "id": row["id"], "question": question}


def openbookqa(row: Row) -> Row:
    return {**row, "choices": options(row["choices"])}


def options(columns: Mapping[str, list[str]]) -> list[dict[str, str]]:
    """The hub stores options by column."""
    pairs = zip(columns["label"], columns["text"], strict=True)
    return [{"label": label, "text": text} for label, text in pairs]


def multiarith(row: Row) -> Row:
    return {"sQuestion": row["question"], "lSolutions": [float(row["final_ans"].replace(",", ""))]}


def mawps(row: Row) -> Row:
    return {"input": row["question"], "target": row["result_float"], "equation": row["equation"], "id": row["id"]}


def load(hub: Hub) -> tuple[dict[str, list[Row]], str]:
    """The rows of each of our splits, and the commit that they are of. Raises `DataError` in one sentence.

    The commit is asked for first and without a second try, so that a hub that cannot be reached is told at once.
    Where the hub's client is set to work offline, its cache answers if it can.
    """
    with told(hub):
        import datasets
        from huggingface_hub import HfApi
        from huggingface_hub.errors import OfflineModeIsEnabled

        datasets.disable_progress_bars()
        try:
            revision = HfApi().dataset_info(hub.repository, timeout=TIMEOUT).sha
        except OfflineModeIsEnabled:
            revision = None
        loaded = [datasets.load_dataset(hub.repository, config, revision=revision) for config in hub.configs]
        return {split: list(_rows(hub, loaded, theirs)) for split, theirs in hub.splits.items()}, revision or "cached"


def _rows(hub: Hub, loaded: list[Any], theirs: tuple[str, ...]) -> Iterator[Row]:
    for dataset in loaded:
        for split in theirs:
            yield from map(hub.convert, dataset[split])


@contextmanager
def told(hub: Hub) -> Iterator[None]:
    """Whatever the hub's client raises, as one sentence."""
    try:
        yield
    except KeyError as error:
        told = f"{hub.source}: the split or field {error} is missing; the dataset has changed since its row was written"
        raise DataError(f"{told}: copy local files with --from DIR, or mend its row in table.py") from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{hub.source} could not be fetched ({lines[0][:200]}); nothing was written. Run the same command when the "
            "hub can be reached (files that came whole are not downloaded again), or copy local files with --from DIR"
        ) from error
