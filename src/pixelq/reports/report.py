"""A report: per game every seed, mean and interval; over games IQM, profiles, probability of improvement, curves."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelq.evaluation.scores import human_normalised
from pixelq.plots.aggregates import Band, draw_aggregates
from pixelq.reports.gather import Gathered, Run, gather
from pixelq.reports.statistics import Estimate, estimate, improvement, iqm_interval, profile
from pixelq.reports.tables import as_csv, as_markdown
from pixelq.run.storage import storage_errors, write_atomically

__all__ = ["Aggregate", "GameScore", "Improvement", "Report", "report", "reported"]

_POINTS = 50  # of a curve
_THRESHOLDS = 101


class GameScore(NamedTuple):
    """A recipe on a game."""

    recipe: str
    game: str
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    mean: Estimate
    human_normalised: float | None  # of the mean


class Aggregate(NamedTuple):
    """A recipe over all games that have published references."""

    recipe: str
    games: tuple[str, ...]
    runs: int
    iqm: Estimate  # of human-normalised scores
    profile: Band
    steps: Band  # IQM over steps
    minutes: Band  # IQM over minutes of training


class Improvement(NamedTuple):
    """Probability that a run of one recipe beats one of another on the same game."""

    recipe: str
    other: str
    games: tuple[str, ...]
    probability: Estimate


class Report(NamedTuple):
    """The numbers of a report."""

    measure: str
    games: tuple[GameScore, ...]
    aggregates: tuple[Aggregate, ...]
    improvements: tuple[Improvement, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        plain = _plain(self)
        assert isinstance(plain, dict)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def report(folder: Path | str, out: Path | str | None = None) -> Report:
    """Make a report of a folder of runs and write it: report.md, scores.csv and pictures.

    Args:
        folder: a sweep's folder, or any folder of run directories.
        out: the folder to write to; None: `report` in `folder`.

    Returns:
        The report's numbers.

    Raises:
        PixelqError: no run has a score, or two runs have the same recipe, game and seed.
        StorageError: the report cannot be written.
    """
    folder = Path(folder)
    place = folder / "report" if out is None else Path(out)
    gathered = gather(folder)
    made = reported(gathered)
    pictures = ["aggregates.svg"] if made.aggregates else []
    files = {
        "report.md": as_markdown(made, pictures).encode(),
        "scores.csv": as_csv(made).encode(),
    }
    if made.aggregates:
        bands = {
            name: [getattr(aggregate, name) for aggregate in made.aggregates]
            for name in ("profile", "steps", "minutes")
        }
        files["aggregates.svg"] = draw_aggregates([aggregate.recipe for aggregate in made.aggregates], bands)
    with storage_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(place / name, data)
    return made


def reported(gathered: Gathered) -> Report:
    """Work out the numbers of a report.

    Args:
        gathered: the runs.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in gathered.runs:
        groups.setdefault((run.recipe, run.game), []).append(run)
    games = tuple(_game_score(recipe, game, runs) for (recipe, game), runs in groups.items())
    notes = list(gathered.notes)
    without = sorted({game for _, game in groups if human_normalised(game, 0.0) is None})
    if without:
        notes.append(f"no published random and human scores: {', '.join(without)}; left out of the averages over games")
    by_recipe: dict[str, dict[str, list[Run]]] = {}
    for (recipe, game), runs in groups.items():
        if game not in without:
            by_recipe.setdefault(recipe, {})[game] = runs
    if len({tuple(of_recipe) for of_recipe in by_recipe.values()}) > 1:
        notes.append("recipes have different games: their IQMs and profiles do not compare")
    if len({len(runs) for of_recipe in by_recipe.values() for runs in of_recipe.values()}) > 1:
        notes.append("games have different numbers of seeds: those with more weigh more in IQM and profile")
    aggregates = tuple(_aggregate(recipe, of_recipe) for recipe, of_recipe in by_recipe.items())
    return Report(gathered.measure, games, aggregates, _improvements(groups), tuple(notes))


def _game_score(recipe: str, game: str, runs: Sequence[Run]) -> GameScore:
    scores = np.array([run.score for run in runs])
    mean = estimate([scores], lambda values: np.asarray(values.mean(axis=-1)))
    seeds = tuple(run.seed for run in runs)
    return GameScore(recipe, game, seeds, tuple(scores.tolist()), mean, human_normalised(game, mean.value))


def _normalised(game: str, scores: Any) -> Any:
    """Of an array of scores."""
    zero, one = human_normalised(game, 0.0), human_normalised(game, 1.0)
    assert zero is not None
    assert one is not None
    return zero + (one - zero) * np.asarray(scores, np.float64)


def _aggregate(recipe: str, games: dict[str, list[Run]]) -> Aggregate:
    scores = [
        np.array([value for run in runs if (value := human_normalised(game, run.score)) is not None])
        for game, runs in games.items()
    ]
    everything = np.concatenate(scores)
    thresholds = np.linspace(min(0.0, float(everything.min())), max(1.0, float(everything.max())) * 1.05, _THRESHOLDS)
    curves = [_iqm_curve(games, axis) for axis in (0, 1)]
    return Aggregate(
        recipe,
        tuple(games),
        everything.size,
        iqm_interval(scores),
        Band(thresholds, *profile(scores, thresholds)),
        *curves,
    )


def _iqm_curve(games: dict[str, list[Run]], axis: int) -> Band:
    """IQM of human-normalised returns in training, as far as all runs have come."""
    runs = [run for of_game in games.values() for run in of_game]
    first, last = max(run.curve[0, axis] for run in runs), min(run.curve[-1, axis] for run in runs)
    points = np.linspace(first, last, _POINTS) if last > first else np.array([last])
    values = {
        game: np.stack([np.interp(points, run.curve[:, axis], _normalised(game, run.curve[:, 2])) for run in of_game])
        for game, of_game in games.items()
    }
    estimates = [
        iqm_interval([of_game[:, point] for of_game in values.values()], resamples=1_000)
        for point in range(points.size)
    ]
    return Band(points, *(np.array(column) for column in zip(*estimates, strict=True)))


def _improvements(groups: dict[tuple[str, str], list[Run]]) -> tuple[Improvement, ...]:
    recipes = list(dict.fromkeys(recipe for recipe, _ in groups))
    found = []
    for ours, theirs in itertools.combinations(recipes, 2):
        games = tuple(game for recipe, game in groups if recipe == ours and (theirs, game) in groups)
        if games:
            mine, others = (
                [np.array([run.score for run in groups[recipe, game]]) for game in games] for recipe in (ours, theirs)
            )
            found.append(Improvement(ours, theirs, games, improvement(mine, others)))
    return tuple(found)
