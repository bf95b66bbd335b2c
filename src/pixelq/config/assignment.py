"""One setting of a config by its option's name, e.g. `algo.n-step`."""

import json
from typing import Any

from pixelq.config.serialisation import from_json, to_json
from pixelq.config.settings import TrainConfig
from pixelq.errors import ConfigError
from pixelq.games import did_you_mean

__all__ = ["assign", "read_value", "value_of"]


def read_value(text: str) -> Any:
    """The value of a word on a command line: a number, true or false, None, several values, or the word itself.

    Args:
        text: e.g. `3`, `1e-4`, `true`, `None`, `huber` or `32 64 64`.
    """
    words = text.split()
    if len(words) > 1:
        return [read_value(word) for word in words]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text == "None":
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


def assign(config: TrainConfig, name: str, value: Any) -> TrainConfig:
    """A config with one setting changed.

    Args:
        config: the other settings.
        name: its option without leading dashes, e.g. `total-steps` or `algo.n-step`.
        value: as in `config.json`; 1e6 does for a whole number.

    Raises:
        ConfigError: there is no such setting, or the value is of another type.
    """
    values = to_json(config)
    holder, last = _find(values, name, config.preset)
    whole = isinstance(value, float) and value.is_integer() and type(holder[last]) is int
    holder[last] = int(value) if whole else value
    changed: TrainConfig = from_json(TrainConfig, values)
    return changed


def value_of(config: TrainConfig, name: str) -> Any:
    """One setting's value, as in `config.json`.

    Args:
        config: the settings.
        name: its option, as for `assign`.

    Raises:
        ConfigError: there is no such setting.
    """
    holder, last = _find(to_json(config), name, config.preset)
    return holder[last]


def _find(values: dict[str, Any], name: str, preset: str) -> tuple[dict[str, Any], str]:
    """The group that a setting is in, and its name there."""
    *groups, last = name.replace("-", "_").split(".")
    holder: Any = values
    for group in groups:
        holder = holder.get(group) if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or last not in holder or isinstance(holder[last], dict) or last == "kind":
        near = did_you_mean(name.replace("_", "-"), _names(values))
        raise ConfigError(f'unknown setting "{name}" of {preset}{near}')
    return holder, last


def _names(values: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in values.items():
        path = prefix + name.replace("_", "-")
        found += _names(value, f"{path}.") if isinstance(value, dict) else [path]
    return found
