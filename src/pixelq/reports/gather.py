"""The runs of a folder: which recipe each belongs to, its score and its curve."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelq.errors import PixelqError
from pixelq.run.reading import FREE, LENGTH, MACHINE, Evaluation, flat, read_evaluation, read_object
from pixelq.run.storage import reason
from pixelq.sweeps.state import is_solved

__all__ = ["Gathered", "Run", "gather"]

_RETURN = "train/return_per_game"
_NOT_RECIPE = (FREE - LENGTH) | MACHINE | {"seed", "log_every_steps", "game", "precision"}
_DEEP = 3  # folders down to a run


class Run(NamedTuple):
    """One run of a report."""

    path: Path
    recipe: str
    game: str
    seed: int
    score: float
    curve: NDArray[np.float64]  # [P, 3] step, minutes, return per game in training


class Gathered(NamedTuple):
    """A folder's runs."""

    runs: tuple[Run, ...]
    measure: str  # the kind of score, in words
    notes: tuple[str, ...]  # runs left out, and why


class _Found(NamedTuple):
    path: Path
    config: dict[str, Any]
    curve: NDArray[np.float64]
    evaluations: dict[str, Evaluation]  # by their conditions, the newest agent's


def gather(folder: Path) -> Gathered:
    """Read all runs of a folder.

    Runs of one recipe differ in game and seed only. Scores come from `pixelq eval` if every run has been evaluated
    under the same conditions, else the mean return of the last games in training.

    Args:
        folder: of a sweep, or any that holds run directories.

    Raises:
        PixelqError: there are no runs with a score, or two of one recipe, game and seed.
    """
    found, notes = [], []
    for path in _run_directories(folder):
        curve = _curve(path / "metrics.jsonl")
        if len(curve):
            found.append(_Found(path, read_object(path / "config.json"), curve, _evaluations(path)))
        else:
            notes.append(f"{path.name} has no finished game yet and is left out")
    if not found and notes:
        raise PixelqError(f"{folder}: no run has finished a game yet, so there are no scores")
    if not found:
        raise PixelqError(f"{folder} holds no run: give the folder of a sweep, or of runs")
    shared = set.intersection(*(set(run.evaluations) for run in found))
    conditions = min(shared) if shared else None
    measure = "mean return of the last games in training" if conditions is None else conditions
    if conditions is None and any(run.evaluations for run in found):
        notes.append("not every run has a score of pixelq eval under the same conditions, so none is used")
    runs: dict[tuple[str, str, int], Run] = {}
    for run, recipe in zip(found, _recipes([run.config for run in found]), strict=True):
        score = float(run.curve[-1, 2]) if conditions is None else run.evaluations[conditions].mean
        key = (recipe, str(run.config.get("game")), int(run.config.get("seed", 0)))
        if key in runs:
            raise PixelqError(f"{runs[key].path} and {run.path} have the same settings and the same seed")
        total = run.config.get("total_steps")
        if isinstance(total, int) and run.curve[-1, 0] < total and not is_solved(run.path):
            notes.append(f"{run.path.name} is not finished: it has come to step {int(run.curve[-1, 0]):,} of {total:,}")
        runs[key] = Run(run.path, *key, score, run.curve)
    return Gathered(tuple(runs[key] for key in sorted(runs)), measure, tuple(notes))


def _run_directories(folder: Path) -> list[Path]:
    try:
        if not folder.is_dir():
            raise PixelqError(f"{folder} is no folder: give the folder of a sweep, or of runs")
        places = [path for depth in range(_DEEP + 1) for path in folder.glob("*/" * depth + "config.json")]
        return sorted({path.parent for path in places if path.is_file()})
    except OSError as error:
        raise PixelqError(f"cannot read {folder}: {reason(error)}") from error


def _curve(path: Path) -> NDArray[np.float64]:
    points = []
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is being written
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise PixelqError(f"cannot read {path}: {reason(error)}") from error
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            point = (record["step"], record["seconds"] / 60, record.get(_RETURN))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PixelqError(f"{path}, line {number}, is damaged: no metrics") from error
        if point[2] is not None:
            points.append(point)
    return np.asarray(points, np.float64).reshape(-1, 3)


def _evaluations(path: Path) -> dict[str, Evaluation]:
    found: dict[str, Evaluation] = {}
    for file in sorted((path / "eval").glob("[!.]*.json")):
        result = read_evaluation(file)
        key = f"mean of {len(result.scores)} games, {result.settings}"
        if key not in found or result.step > found[key].step:
            found[key] = result
    return found


def _recipes(configs: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each: the preset, and the settings in which recipes of that preset differ."""
    settings = [
        {name: json.dumps(value) for name, value in flat(config).items() if name not in _NOT_RECIPE}
        for config in configs
    ]
    names = []
    for mine in settings:
        same = [other for other in settings if other.get("preset") == mine.get("preset")]
        differ = [name for name in mine if name != "preset" and len({other.get(name) for other in same}) > 1]
        shown = [f"{name.rpartition('.')[2].replace('_', '-')}={mine[name].strip(chr(34))}" for name in differ]
        names.append(" ".join([json.loads(mine.get("preset", '"custom"')), *shown]))
    return names
