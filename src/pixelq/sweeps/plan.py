"""The plan of a sweep: presets × games × seeds × settings, and the runs that follow from it. Imports no torch."""

import dataclasses
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelq.config import TrainConfig, validate
from pixelq.config.assignment import assign, read_value
from pixelq.errors import PixelqError
from pixelq.games import did_you_mean, resolve_game
from pixelq.presets import preset
from pixelq.run.storage import reason, storage_errors, write_atomically
from pixelq.sweeps.folder import PLAN, check_folder

__all__ = [
    "Plan",
    "PlannedRun",
    "check_kept",
    "directory_name",
    "keep_plan",
    "planned_runs",
    "read_plan",
    "read_seeds",
    "read_setting",
    "seeds_of",
    "several",
]

_MOST_RUNS = 10_000
_LONGEST_NAME = 200  # letters


@dataclass(frozen=True)
class Plan:
    """What a sweep combines."""

    presets: tuple[str, ...]
    """Recipes."""
    games: tuple[str, ...] = ()
    """ROM names or Gymnasium ids; none: each preset's own."""
    seeds: tuple[int, ...] = (1,)
    """A run each."""
    settings: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """Options' names, each with the values to try."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    name: str
    """Its directory in the sweep's folder."""
    config: TrainConfig


def read_seeds(text: str) -> tuple[int, ...]:
    """Seeds as a person writes them: `1-5`, `1,3,7` or both.

    Raises:
        PixelqError: it is neither.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        if not match:
            raise PixelqError(f"--seeds is {text}: must be like 1-5 or 1,3,7")
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low or high - low >= _MOST_RUNS:
            raise PixelqError(f"--seeds is {text}: {part.strip()} holds no seeds, or more than {_MOST_RUNS:,}")
        seeds += range(low, high + 1)
    return tuple(dict.fromkeys(seeds))


def seeds_of(given: int | str | Iterable[int]) -> tuple[int, ...]:
    """Seeds as Python code gives them: a number, several, or a text as `read_seeds` takes it.

    Raises:
        PixelqError: as for `read_seeds`.
    """
    return read_seeds(given) if isinstance(given, str) else several(given)


def several(given: Any) -> tuple[Any, ...]:
    """The values of a list, or a value that stands alone.

    Args:
        given: e.g. `["fast", "c51"]`, `range(1, 6)`, `"fast"` or 3.
    """
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)


def read_setting(text: str) -> tuple[str, tuple[Any, ...]]:
    """A setting with its values as a person writes them, e.g. `algo.n-step=1,3`.

    Raises:
        PixelqError: there is no `=`, or nothing on a side of it.
    """
    name, equals, values = text.partition("=")
    words = [word.strip() for word in values.split(",")]
    if not equals or not name.strip() or not all(words):
        raise PixelqError(f"--set is {text}: must be NAME=V or NAME=V,V, e.g. algo.n-step=1,3")
    return name.strip().lstrip("-"), tuple(map(read_value, words))


def read_plan(path: Path) -> Plan:
    """The plan in a TOML file: `presets`, `games`, `seeds` (a list or "1-5") and a table `[set]`.

    Raises:
        PixelqError: it cannot be read, or holds something else.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PixelqError(f"cannot read {path}: {reason(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PixelqError(f"{path} is no TOML: {error}") from error
    known = ("presets", "games", "seeds", "set")
    for name in values:
        if name not in known:
            raise PixelqError(f'{path}: unknown key "{name}"{did_you_mean(name, known)}')
    presets, games, seeds = values.get("presets"), values.get("games", []), values.get("seeds", [1])
    if isinstance(seeds, str):
        seeds = list(read_seeds(seeds))
    for name, found, kind in (("presets", presets, str), ("games", games, str), ("seeds", seeds, int)):
        if not isinstance(found, list) or not all(type(item) is kind for item in found):
            raise PixelqError(f"{path}: {name} must be a list of {'whole numbers' if kind is int else 'names'}")
    settings = values.get("set", {})
    if not isinstance(settings, dict):
        raise PixelqError(f"{path}: set must be a table of settings")
    return Plan(tuple(presets or ()), tuple(games), tuple(seeds), _settings(settings))


def _settings(table: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, tuple[Any, ...]], ...]:
    found: list[tuple[str, tuple[Any, ...]]] = []
    for name, value in table.items():
        if isinstance(value, dict):  # [set.algo]
            found += _settings(value, f"{prefix}{name}.")
        else:
            several = value if isinstance(value, list) else [value]
            found.append((prefix + name, tuple(None if item == "None" else item for item in several)))
    return tuple(found)


def planned_runs(plan: Plan) -> list[PlannedRun]:
    """Every run of a plan, seeds going round first outside, so that all recipes are seen early.

    Raises:
        PixelqError: an unknown preset, game or setting, a value out of range, nothing to run, or far too much.
    """
    if not plan.presets:
        raise PixelqError("PRESET is missing: pixelq sweep PRESET … --folder DIR")
    names = [name for name, _ in plan.settings]
    for name, place in (("seed", "--seeds"), ("game", "--games"), ("preset", "the words after `pixelq sweep`")):
        if name in names:
            raise PixelqError(f"--set {name} cannot be: {name}s of a sweep are given by {place}")
    if len(set(names)) < len(names):
        raise PixelqError(f"--set {next(name for name in names if names.count(name) > 1)} is given twice")
    choices = [values for _, values in plan.settings]
    count = len(plan.presets) * max(1, len(plan.games)) * len(plan.seeds)
    for values in choices:
        count *= len(values)
    if not 0 < count <= _MOST_RUNS:
        raise PixelqError(f"a sweep of {count:,} runs: must be between 1 and {_MOST_RUNS:,}")
    runs: dict[str, PlannedRun] = {}
    for seed, name, values in itertools.product(plan.seeds, plan.presets, itertools.product(*choices)):
        base = preset(name)
        for game in plan.games or (base.game,):
            config = dataclasses.replace(base, game=game, seed=seed)
            for setting, value in zip(names, values, strict=True):
                config = assign(config, setting, value)
            validate(config)
            resolve_game(game)
            varied = [
                (setting, value)
                for (setting, several), value in zip(plan.settings, values, strict=True)
                if len(several) > 1
            ]
            run = PlannedRun(_name(name, game, varied, seed), config)
            if run.name in runs:
                raise PixelqError(f"{run.name} would be run twice: give each preset, game, seed and value once")
            runs[run.name] = run
    return list(runs.values())


def _name(recipe: str, game: str, varied: Sequence[tuple[str, Any]], seed: int) -> str:
    parts = [recipe, game, *(f"{name.rpartition('.')[2]}={_plain(value)}" for name, value in varied), f"s{seed}"]
    name = directory_name("-".join(parts))
    if len(name) > _LONGEST_NAME:
        raise PixelqError(f"a run's name would have more than {_LONGEST_NAME} letters: vary fewer settings")
    return name


def directory_name(text: str) -> str:
    """A text as a file system takes it for a name."""
    return re.sub(r"[^\w.=+-]", "_", text)


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def check_kept(folder: Path, plan: Plan) -> None:
    """Check that a folder is fit for a sweep, and that the plan takes in the one that the folder holds.

    Raises:
        PixelqError: the folder holds something else, or a sweep with runs that this plan lacks or changes.
    """
    check_folder(folder, PLAN)
    path = folder / PLAN
    if path.exists():
        before = {run.name: run.config for run in planned_runs(read_plan(path))}
        now = {run.name: run.config for run in planned_runs(plan)}
        for name, config in before.items():
            if now.get(name) != config:
                what = "has not" if name not in now else "has with other settings"
                raise PixelqError(f"{folder} holds a sweep with {name}, which this one {what}: give --folder a new one")


def keep_plan(folder: Path, plan: Plan) -> None:
    """Write a plan into the sweep's folder, or check that it takes in the one that is there.

    Raises:
        PixelqError: as for `check_kept`.
        StorageError: it cannot be written.
    """
    check_kept(folder, plan)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / PLAN, _toml(plan).encode())


def _toml(plan: Plan) -> str:
    """JSON's texts, numbers and lists are TOML's, too."""
    lines = [f"{name} = {json.dumps(list(getattr(plan, name)))}" for name in ("presets", "games", "seeds")]
    if plan.settings:
        lines.append("\n[set]")
    for name, values in plan.settings:
        # TOML has no null: as text it comes back as None where the setting may be None
        plain = ["None" if value is None else value for value in values]
        lines.append(f"{json.dumps(name)} = {json.dumps(plain)}")
    return "\n".join(lines) + "\n"
