"""Configs as JSON values and back."""

import dataclasses
import types
import typing
from typing import Any, Literal

from pixelq.config.algos import ALGO_KINDS, AlgoConfig, kind_of
from pixelq.config.settings import EnvConfig
from pixelq.errors import ConfigError

__all__ = ["from_json", "to_json"]


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values, nested like the dataclasses."""
    values = dataclasses.asdict(config)
    if dataclasses.is_dataclass(getattr(config, "algo", None)):
        values["algo"] = {"kind": kind_of(config.algo), **values["algo"]}
    return values


def from_json(kind: type, values: dict[str, Any], path: str = "") -> Any:
    """The inverse of `to_json`.

    Args:
        kind: the dataclass to build.
        values: output of `to_json`; a missing field takes its default.
        path: the place of `values` in the file, for the error's text.

    Raises:
        ConfigError: a name that `kind` does not have or a value of another type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f'"{path}" must be an object' if path else "the settings must be an object")
    values = _renamed(kind, values)
    hints = typing.get_type_hints(kind)
    built: dict[str, Any] = {}
    for name, value in values.items():
        where = f"{path}.{name}" if path else name
        if name not in hints:
            raise ConfigError(f'unknown setting "{where}"')
        built[name] = _typed(hints[name], value, where)
    return kind(**built)


def _renamed(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Values with older versions' names replaced by today's."""
    if kind is EnvConfig and isinstance(values.get("clip_rewards"), bool):
        values = dict(values)
        values.setdefault("rewards", "sign" if values.pop("clip_rewards") else "raw")
    return values


def _algo_from_json(values: Any, where: str) -> Any:
    """An algorithm's settings; the name of their class stands beside them."""
    if not isinstance(values, dict):
        raise ConfigError(f'"{where}" must be an object')
    kind = values.get("kind")
    if kind not in list(ALGO_KINDS):  # it may be no text
        raise ConfigError(f'"{where}.kind" is {kind!r}: must be {" or ".join(map(repr, ALGO_KINDS))}')
    return from_json(ALGO_KINDS[kind], {name: value for name, value in values.items() if name != "kind"}, where)


def _typed(hint: Any, value: Any, where: str) -> Any:
    if hint == AlgoConfig:
        return _algo_from_json(value, where)
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast("type", hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        ok = value in args
    elif origin is tuple:
        ok = isinstance(value, list | tuple) and len(value) == len(args)
        value = tuple(value) if ok else value
        ok = ok and all(type(item) is kind for item, kind in zip(value, args, strict=True))
    elif origin in (types.UnionType, typing.Union):
        return None if value is None else _typed(next(kind for kind in args if kind is not type(None)), value, where)
    elif hint is float:
        ok = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        ok = type(value) is hint
    if not ok:
        raise ConfigError(f'"{where}" is {value!r}: must be {_in_words(hint)}')
    return value


def _in_words(hint: Any) -> str:
    """The description of a type's JSON value."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, args))
    if typing.get_origin(hint) is tuple:
        return f"{len(args)} whole numbers"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[hint]
