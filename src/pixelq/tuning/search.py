"""The search space of a study: a range or a choice of values for each setting. Imports neither torch nor Optuna."""

import math
from dataclasses import dataclass

from pixelq.config import TrainConfig, validate
from pixelq.config.assignment import assign, read_value, value_of
from pixelq.errors import PixelqError

__all__ = ["Scalar", "Search", "check_search", "read_search"]

Scalar = float | int | str | bool | None


@dataclass(frozen=True)
class Search:
    """A setting with its search space: between two numbers, or among some values."""

    name: str
    """Its option's name."""
    low: float = 0.0
    """The lower end."""
    high: float = 0.0
    """The upper end; both ends are included."""
    log: bool = False
    """Whether every ratio, not every difference, is as likely."""
    choices: tuple[Scalar, ...] = ()
    """Values to choose from; none: the range."""


def read_search(text: str) -> Search:
    """A search as a person writes it: `NAME=LOW..HIGH`, `NAME=LOW..HIGH:log` or `NAME=V,V,V`.

    Raises:
        PixelqError: it is none of these, or the range holds nothing.
    """
    name, _, values = text.partition("=")
    name = name.strip().lstrip("-")
    wrong = f"--search is {text}: must be NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=V,V, "
    if not name or not values.strip():
        raise PixelqError(f"{wrong}e.g. optimiser.learning-rate=1e-5..1e-3:log")
    if ".." not in values:
        words = tuple(read_value(word.strip()) for word in values.split(","))
        if len(words) < 2 or "" in words or any(isinstance(word, list) for word in words):
            raise PixelqError(f"{wrong}with at least two single values")
        if len(set(words)) < len(words):
            raise PixelqError(f"--search is {text}: every value must be given once")
        return Search(name, choices=words)
    ends, _, scale = values.partition(":")
    low, high = (read_value(word.strip()) for word in ends.split("..", 1))
    if scale.strip() not in ("", "log") or isinstance(low, bool) or isinstance(high, bool):
        raise PixelqError(f"{wrong}e.g. optimiser.learning-rate=1e-5..1e-3:log")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not math.isfinite(high - low):
        raise PixelqError(f"{wrong}with two numbers")
    if not low < high or (scale and low <= 0):
        raise PixelqError(f"--search is {text}: LOW must be less than HIGH{', and more than 0 for log' * bool(scale)}")
    return Search(name, low, high, bool(scale.strip()))


def check_search(config: TrainConfig, search: Search) -> Search:
    """A search made fit for a recipe: ends of a setting that is a whole number are whole.

    Args:
        config: the recipe.
        search: the settings to search.

    Raises:
        PixelqError: the recipe has no such setting, or an end or a value is out of its range.
    """
    tried = search.choices or (search.low, search.high)
    for value in tried:
        validate(assign(config, search.name, value))
    if search.choices:
        return search
    if isinstance(value_of(config, search.name), int):
        return Search(search.name, int(search.low), int(search.high), search.log)
    return Search(search.name, float(search.low), float(search.high), search.log)
