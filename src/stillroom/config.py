"""Configuration: frozen, unknown keys refused, errors that name file and field.

A `Config` sits beside what it configures and holds only what decides a result; how to validate one is this file's
business, what it means is not.
"""

import json
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stillroom.errors import ConfigError, unknown

FAULTS = 8
"""Faulty fields that one error tells of."""
SECRET = "secret"  # noqa: S105 (a name)
"""The type of an error about a value that must not be repeated."""


class Config(BaseModel):
    """Frozen settings. Types are strict: `"3"` is not 3, and `true` is not 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, data: Any, where: str) -> Self:
        """Validate plain data (what YAML or JSON gives). A mapping for a field whose default sets something keeps that,
        where it says nothing else. Raises `ConfigError`, which names `where` and each field."""
        try:
            return cls.model_validate_json(json.dumps(_over_defaults(cls, plain(data)), default=str), strict=True)
        except ValidationError as error:
            lines = list(dict.fromkeys(_explain(cls, detail) for detail in error.errors(include_url=False)))
            more = [f"and {len(lines) - FAULTS} more"] if len(lines) > FAULTS else []
            raise ConfigError("\n".join(f"{where}: {line}" for line in [*lines[:FAULTS], *more])) from None


def _over_defaults(kind: Any, data: Any) -> Any:
    """Plain data for this type: a mapping for a field keeps what the field's default sets and the mapping does not."""
    if isinstance(data, list):
        return [_over_defaults(inner, value) for inner in get_args(kind)[:1] for value in data] or data
    if not isinstance(data, dict):
        return data
    if _is_model(kind):
        return {key: _over_default(kind.model_fields.get(key), value) for key, value in data.items()}
    if get_origin(kind) is dict:
        return {key: _over_defaults(get_args(kind)[1], value) for key, value in data.items()}
    for choice in get_args(kind):
        data = _over_defaults(choice, data)
    return data


def _over_default(field: FieldInfo | None, value: Any) -> Any:
    if field is None:
        return value
    if isinstance(field.default, Config) and isinstance(value, dict):
        value = _over(field.default.model_dump(mode="json", exclude_unset=True), value)
    return _over_defaults(field.annotation, value)


def _over(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Both mappings in one, where both hold a value that of `high`, where both hold a mapping both in one."""
    deep = [key for key in low.keys() & high if isinstance(low[key], dict) and isinstance(high[key], dict)]
    return low | high | {key: _over(low[key], high[key]) for key in deep}


def plain(data: Any) -> Any:
    """YAML's other keys, as dates, become text."""
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    return [plain(value) for value in data] if isinstance(data, list) else data


def _explain(cls: type[BaseModel], detail: ErrorDetails) -> str:
    field = ".".join(str(part) for part in detail["loc"]) or "(the whole file)"
    if detail["type"] == "extra_forbidden":
        return unknown("key", field, _siblings(cls, detail["loc"]))
    given = "" if detail["type"] in ("missing", SECRET) else f", given {json.dumps(detail['input'], default=str)[:80]}"
    told = detail["msg"].removeprefix("Value error, ")  # pydantic's words before a rule's own
    if not detail["loc"] and detail["type"] == "value_error":  # a rule over several fields: it names them itself
        return told
    return f"{field}: {told}{given}"


def _siblings(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The dotted names of the fields that stand where the unknown key `loc` was given."""
    model: Any = cls
    for part in loc[:-1]:
        field = model.model_fields.get(part) if _is_model(model) else None
        annotation = field.annotation if field is not None else model
        inner = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_model(a)]
        model = inner[0] if inner else model
    prefix = "".join(f"{part}." for part in loc[:-1])
    return [prefix + name for name in model.model_fields] if _is_model(model) else []


def _is_model(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseModel)
