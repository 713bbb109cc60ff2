"""Recipe files as they are written: found by name, YAML in which slips are errors, overrides applied.

What they hold is validated elsewhere. Nothing heavy is imported here, so that a slip in a name or an override is told
at once.
"""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from stillroom.config import plain
from stillroom.errors import SHOWN, ConfigError, UsageError, unknown

MOST = 100_000
"""Values of a recipe: a few aliases of aliases would fill any memory."""


def recipe_names() -> list[str]:
    """Those that come with the package."""
    found = (resources.files("stillroom") / "recipes").iterdir()
    return sorted(path.name.removesuffix(".yaml") for path in found if path.name.endswith(".yaml"))


def written(name: str, assignments: list[str]) -> dict[str, Any]:
    """What a recipe of the package or a YAML file holds, overrides applied, unvalidated. Raises `UsageError` for a
    name that is none, and `ConfigError`."""
    if name in recipe_names():
        path = Path(str(resources.files("stillroom") / "recipes" / f"{name}.yaml"))
    elif Path(name).suffix in (".yaml", ".yml"):
        path = Path(name)
    else:
        raise UsageError(f"{unknown('recipe', name, recipe_names())}; or give the path of a .yaml file")
    return override(read_recipe(path), assignments)


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise yaml.MarkedYAMLError(problem=f"the key {twice!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str, where: str) -> Any:
    """Plain data from YAML text; `where` names it in the error."""
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
        size = _written_out(data, {})
        if size <= MOST:
            json.dumps(plain(data), default=str)  # a number of thousands of digits is read of hexadecimal, not written
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # of dates, numbers, keys and depths too
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if size > MOST:
        raise ConfigError(f"{where}: its aliases (*name) write out to {size} values, more than {MOST}: write less")
    return data


def _written_out(data: Any, known: dict[int, int]) -> int:
    """How many values the data holds with its aliases written out. Raises `ValueError` for one inside of itself."""
    if not isinstance(data, dict | list):
        return 1
    if known.get(id(data)) == 0:
        raise ValueError("an alias (*name) stands inside of what it names")
    if id(data) not in known:
        known[id(data)] = 0
        parts = data.values() if isinstance(data, dict) else data
        known[id(data)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(data)]


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping that a recipe file holds, unvalidated."""
    try:
        data = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys to values, this is a {type(data).__name__}")
    return data


def override(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """A copy of `data` with dotted `key=value` assignments applied; values are read as YAML."""
    result: dict[str, Any] = json.loads(json.dumps(plain(data), default=str))
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        told = f"override {assignment[:SHOWN]!r}"
        if not equals or not all(dotted.split(".")):
            raise ConfigError(f"{told}: expected key=value, as in students.latent.codi.thoughts=6")
        *parents, last = dotted.split(".")
        node = result
        for part in parents:
            child = node.setdefault(part, {})
            if child is None:
                child = node[part] = {}
            if not isinstance(child, dict):
                raise ConfigError(f"{told}: {part!r} is a value, it has no field {last!r}")
            node = child
        value = read_yaml(text, told)
        if isinstance(value, str) and isinstance(held := node.get(last), dict):
            field = "name" if "name" in held else next(iter(held), "KEY")
            raise ConfigError(
                f"{told}: {dotted} has fields: set one, as {dotted}.{field}=…, or all with {dotted}='{{…}}'"
            )
        node[last] = value
    return result
