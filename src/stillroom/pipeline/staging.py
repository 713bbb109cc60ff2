"""How a row of a recipe becomes a stage: its config, validated, and what of it decides the stage's key."""

from collections.abc import Callable, Mapping
from typing import Any

from stillroom.config import Config
from stillroom.errors import ConfigError, unknown
from stillroom.store import Stage, Workplace


def choose(table: Mapping[str, Any], data: dict[str, Any], what: str, where: str) -> tuple[Any, Any]:
    """The row of a table that `data["name"]` selects, and its config. Raises `ConfigError` for an unknown name."""
    name = str(data.get("name"))
    if name not in table:
        raise ConfigError(f"{where}: {what}.name: {unknown(what, name, table)}")
    return table[name], table[name].config.parse(data, f"{where}: {what}")


def staged(
    stage: str,
    name: str,
    version: int,
    config: Config,
    parents: Mapping[str, Stage],
    run: Callable[[Workplace], None],
    stamp: Mapping[str, Any] = {},
) -> Stage:
    """The stage that this config describes; `stamp` is what else of the outside decides its result."""
    return Stage(stage, name, version, {**config.model_dump(mode="json"), **stamp}, dict(parents), run)
