"""The numbers of a picture of runs: learning curves over seeds, and scores with their uncertainty."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelq.errors import PixelqError
from pixelq.evaluation.scores import REFERENCE, human_normalised, summarise_seeds
from pixelq.run.reading import Evaluation, read_evaluation, read_object, same_but_seed
from pixelq.run.rundir import RunDir
from pixelq.run.storage import storage_errors

__all__ = ["Axis", "Curve", "Plotted", "Score", "name_seeds", "plotted"]

Axis = Literal["steps", "frames", "minutes"]

_AXES: dict[Axis, tuple[str, float]] = {
    "steps": ("step", 1.0),
    "frames": ("frames", 1.0),
    "minutes": ("seconds", 1 / 60),
}


class Curve(NamedTuple):
    """A metric over training, of runs that differ in their seed only."""

    label: str
    game: str
    seeds: tuple[int, ...]
    x: NDArray[np.float64]  # [P] steps, frames or minutes that every seed has reached
    mean: NDArray[np.float64]  # [P] over the seeds
    low: NDArray[np.float64]  # [P] lowest seed
    high: NDArray[np.float64]  # [P] highest seed


class Score(NamedTuple):
    """Evaluations of the same runs under one protocol, each of its run's newest evaluated agent."""

    label: str
    game: str
    protocol: str
    seeds: tuple[int, ...]
    steps: tuple[int, ...]  # of the agents
    games: int
    mean: float
    mean_ci95: tuple[float, float]
    iqm: float
    iqm_ci95: tuple[float, float]
    human_normalised: float | None  # of the mean
    settings: str  # the line that names every condition


class Plotted(NamedTuple):
    """The numbers of a picture."""

    metric: str
    axis: Axis
    curves: tuple[Curve, ...]
    scores: tuple[Score, ...]

    def captions(self) -> list[str]:
        """What must be said beside the picture: what lines and bands are, and how the scores were measured."""
        several = any(len(curve.seeds) > 1 for curve in self.curves)
        band = ", mean over seeds; the band spans the lowest to the highest seed, as far as all have come"
        lines = [f"Curves: {self.metric}{band if several else ', each of a single run'}."]
        if self.scores:
            lines.append(
                "Scores: mean (dot) and interquartile mean (diamond) of all games with 95% bootstrap intervals; of "
                "several seeds, agents are drawn first, then games."
            )
            lines += dict.fromkeys(score.settings for score in self.scores)
        for game in dict.fromkeys(curve.game for curve in self.curves if curve.game in REFERENCE):
            random, human = REFERENCE[game]
            lines.append(f"{game}, dashed: random play {random:g} and human {human:g} as published (no-op starts).")
        return lines

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        curves = [
            {
                name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in curve._asdict().items()
            }
            for curve in self.curves
        ]
        return {
            "metric": self.metric,
            "axis": self.axis,
            "curves": curves,
            "scores": [score._asdict() for score in self.scores],
        }


class _Source(NamedTuple):
    """What is plotted of a run."""

    name: str
    game: str
    seed: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    evaluations: tuple[Evaluation, ...]  # the newest of each protocol


def plotted(
    runs: Sequence[Path], metric: str = "train/return_per_game", axis: Axis = "steps", each: bool = False
) -> Plotted:
    """Work out the numbers of a picture.

    Args:
        runs: run directories; runs that differ only in their seed become one curve.
        metric: a key of `metrics.jsonl`.
        axis: the horizontal axis.
        each: draw every run's curve.

    Raises:
        PixelqError: one is no run, is damaged or has no such metric, or two are the same run or the same seed.
    """
    groups: dict[str, list[_Source]] = {}
    paths = [run.resolve() for run in runs]
    for index, (run, name) in enumerate(zip(runs, _names(paths), strict=True)):
        config = read_object(RunDir.open(run).config)
        if paths[index] in paths[:index]:
            raise PixelqError(f"{run} is given twice")
        source = _read(run, name, config, metric, axis)
        group = groups.setdefault(str(index) if each else same_but_seed(config), [])
        twin = next((other.name for other in group if other.seed == source.seed), None)
        if twin:
            raise PixelqError(f"{twin} and {source.name} have the same settings and the same seed: give one of them")
        group.append(source)
    labels = _labels([[source.name for source in group] for group in groups.values()])
    curves, scores = [], []
    for label, group in zip(labels, groups.values(), strict=True):
        curves.append(_curve(label, sorted(group, key=lambda source: source.seed)))
        scores += _scores(label, sorted(group, key=lambda source: source.seed))
    return Plotted(metric, axis, tuple(curves), tuple(scores))


def name_seeds(seeds: Sequence[int]) -> str:
    """Which seed, or how many."""
    return f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"


def _read(run: Path, name: str, config: dict[str, Any], metric: str, axis: Axis) -> _Source:
    key, scale = _AXES[axis]
    points: list[tuple[float, float]] = []
    keys: set[str] = set()
    named = False
    path = RunDir(run).metrics
    with storage_errors(path):
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is being written
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            x, y = record[key], record.get(metric)
            named |= metric in record
            keys |= {name for name, value in record.items() if isinstance(value, int | float)}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PixelqError(f"{path}, line {number}, is damaged: no metrics") from error
        if isinstance(x, int | float) and isinstance(y, int | float) and (not points or x * scale > points[-1][0]):
            points.append((x * scale, y))
    if not points:
        there = f"it has {', '.join(sorted(keys))}" if keys else "it has no metrics yet"
        if named:
            there = "no game has ended yet" if metric.startswith("train/return_") else "nothing was measured yet"
        raise PixelqError(f'{run} has no values of "{metric}": {there}')
    x_values, y_values = np.asarray(points, np.float64).T
    game = str(config.get("game"))
    return _Source(name, game, int(config.get("seed", 0)), x_values, y_values, _newest_evaluations(run))


def _newest_evaluations(run: Path) -> tuple[Evaluation, ...]:
    """Of each protocol the newest agent's; if there are several of it, the one of most games, then the first seed."""
    found: dict[str, Evaluation] = {}
    for path in sorted(RunDir(run).eval.glob("[!.]*.json")):
        result = read_evaluation(path)
        best = found.get(result.protocol)
        if best is None or _rank(result) > _rank(best):
            found[result.protocol] = result
    return tuple(found.values())


def _rank(result: Evaluation) -> tuple[int, int, int]:
    return result.step, len(result.scores), -result.seed


def _names(paths: Sequence[Path]) -> list[str]:
    """What runs are called: their directories' names, with the folder before where two have the same."""
    names = Counter(path.name for path in paths)
    called = [path.name if names[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths]
    return [os.fsencode(name).decode(errors="replace") for name in called]  # a name that is no UTF-8 can be drawn


def _labels(groups: Sequence[Sequence[str]]) -> list[str]:
    """What the names of each group's runs share; the whole first name where that says nothing or not enough."""
    labels = []
    for names in groups:
        shared = names[0]
        while any(not name.startswith(shared) for name in names):
            shared = shared[:-1]
        if len(names) > 1:
            shared = shared.rstrip("-_. ")
            shared = next(
                (shared.removesuffix(end) for end in ("-seed", "_seed", "-s", "_s") if shared.endswith(end)), shared
            )
        labels.append(shared or names[0])
    return [names[0] if labels.count(label) > 1 else label for label, names in zip(labels, groups, strict=True)]


def _curve(label: str, group: Sequence[_Source]) -> Curve:
    """The group's mean and extremes at every point that any of its runs logged and all have reached."""
    first, last = max(source.x[0] for source in group), min(source.x[-1] for source in group)
    x = np.unique(np.concatenate([source.x for source in group]))
    x = x[(x >= first) & (x <= last)]
    values = np.stack([np.interp(x, source.x, source.y) for source in group])  # [S, P]
    seeds = tuple(source.seed for source in group)
    if not x.size:
        names = ", ".join(source.name for source in group)
        raise PixelqError(f"{names} have no part of training in common: one begins after another has ended")
    return Curve(label, group[0].game, seeds, x, values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def _scores(label: str, group: Sequence[_Source]) -> list[Score]:
    by_protocol: dict[tuple[str, str, str], list[tuple[int, Evaluation]]] = {}
    for source in group:
        for result in source.evaluations:
            key = (result.game, result.protocol, result.settings)
            by_protocol.setdefault(key, []).append((source.seed, result))
    scores = []
    for (game, protocol, settings), found in by_protocol.items():
        results = [result for _, result in found]
        summary = summarise_seeds([result.scores for result in results])
        scores.append(
            Score(
                label=label,
                game=game,
                protocol=protocol,
                seeds=tuple(seed for seed, _ in found),
                steps=tuple(result.step for result in results),
                games=sum(len(result.scores) for result in results),
                human_normalised=human_normalised(game, summary.mean),
                settings=settings,
                **summary._asdict(),
            )
        )
    return scores
