"""Published benchmarks and a user's own questions, read from JSON-lines files of the data folder.

    table.py     one row a benchmark: its files, its reader, its place on the model hub
    readers.py   a row becomes a problem              kinds.py     the kind of an answer
    repair.py    known defects are mended             notes.py     what was mended, kept or refused
    rows.py      the lines of a file                  reading.py   files become splits
    hub.py       rows of the model hub                questions.py a user's own questions

Nothing here opens a network: `stillroom.tasks.fetching` does, through hub.py.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, create_model

from stillroom.config import Config
from stillroom.tasks.benchmarks.notes import Splits
from stillroom.tasks.benchmarks.reading import hold_out, read_splits
from stillroom.tasks.benchmarks.rows import HINT, rows
from stillroom.tasks.benchmarks.table import BENCHMARKS

__all__ = ["BENCHMARKS", "HINT", "BenchmarkConfig", "Splits", "absent", "config_of", "files", "read", "rows", "trains"]


class BenchmarkConfig(Config):
    """A benchmark that only tests."""

    split: Literal["study", "official"] = "study"
    """The sizes of the granularity study, or the model hub's own splits (as `stillroom fetch` brings them)."""


class TrainableConfig(BenchmarkConfig):
    """A benchmark that students can learn from."""

    validation: int = Field(100, ge=1)
    """Problems taken from the end of training for choosing layers and positions, where there is no file of them."""
    train: int | None = Field(None, ge=1)
    """The first so many of the training problems are learned from; all where it is not given."""


def config_of(name: str) -> type[BenchmarkConfig]:
    """The config class of one benchmark."""
    benchmark = BENCHMARKS[name]
    base = TrainableConfig if "train" in benchmark.study else BenchmarkConfig
    title = "".join(word.capitalize() for word in name.split("_")) + "Config"
    fields: dict[str, Any] = {"name": (Literal[name], name)}
    return create_model(title, __base__=base, __doc__=benchmark.about, **fields)


def trains(config: BenchmarkConfig) -> bool:
    return isinstance(config, TrainableConfig)


def files(name: str, config: BenchmarkConfig) -> tuple[str, ...]:
    return tuple(BENCHMARKS[name].files(name, config.split).values())


def absent(path: Path) -> str:
    """What to tell of a file that is not there: how its benchmark's are had, and which setting reads them then."""
    for name, benchmark in BENCHMARKS.items():
        if path.name in {*benchmark.files(name, "study").values(), *benchmark.files(name, "official").values()}:
            return (
                f"{path}: no such file; `stillroom fetch {name}` brings the benchmark's official split, which a recipe "
                "reads with `split: official` in that task (task.split=official; docs/benchmarks.md); or set "
                "STILLROOM_DATA or the recipe's `data` to the folder that holds this file"
            )
    return f"{path}: no such file; {HINT}"


def read(name: str, config: BenchmarkConfig, data: Path) -> Splits:
    """`train`, `validation` and `test` of a benchmark; `test` alone where it only tests."""
    paths = {split: data / file for split, file in BENCHMARKS[name].files(name, config.split).items()}
    found = read_splits(name, paths)
    if not isinstance(config, TrainableConfig):
        return found
    if "validation" not in found:
        found = hold_out(found, config.validation, paths["train"].name)
    return Splits({**found, "train": found["train"][: config.train]}, found.notes)
