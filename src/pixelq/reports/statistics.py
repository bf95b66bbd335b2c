"""Aggregates over games and seeds with stratified bootstrap intervals.

A set of scores is a sequence of games, each an array of its seeds' scores; games may have different numbers of seeds.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", and their rliable.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "Scores", "estimate", "improvement", "iqm", "iqm_interval", "profile"]

Scores = Sequence[NDArray[np.float64]]
_RESAMPLES = 5_000
_AT_ONCE = 2_000_000  # scores that are resampled together: bounds memory


class Estimate(NamedTuple):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


def iqm(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interquartile mean: a quarter of the scores is cut off at either end, rounded down.

    Args:
        scores: [..., N].

    Returns:
        [...].
    """
    cut = scores.shape[-1] // 4
    middle = np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut]
    return np.asarray(middle.mean(axis=-1))


def iqm_interval(scores: Scores, resamples: int = _RESAMPLES) -> Estimate:
    """IQM of all games' and seeds' scores together; the interval is by resampling the seeds of each game.

    Args:
        scores: at least one game of at least one seed.
        resamples: of the bootstrap.
    """
    return estimate(scores, iqm, resamples)


def estimate(
    scores: Scores, aggregate: Callable[[NDArray[np.float64]], NDArray[np.float64]], resamples: int = _RESAMPLES
) -> Estimate:
    """An aggregate of all scores together with its stratified bootstrap interval (percentiles).

    Args:
        scores: at least one game of at least one seed.
        aggregate: from [..., N] scores to [...] numbers.
        resamples: of the bootstrap.
    """
    value = float(aggregate(np.concatenate(scores)))
    drawn = [aggregate(sample) for sample in _resampled(scores, resamples)]
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def profile(
    scores: Scores, thresholds: NDArray[np.float64], resamples: int = 2_000
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Performance profile: the share of runs, over all games, with a score above a threshold.

    Args:
        scores: at least one game of at least one seed.
        thresholds: [T].
        resamples: of the bootstrap.

    Returns:
        [T] shares, and the lower and upper ends of their 95% intervals.
    """
    above = [game[:, None] > thresholds for game in scores]  # [S, T] each
    share = np.concatenate(above).mean(axis=0)
    generator = np.random.default_rng(0)
    sums = np.zeros((resamples, thresholds.size))
    for game in above:
        drawn = generator.integers(len(game), size=(resamples, len(game)))
        counts = np.stack([np.bincount(row, minlength=len(game)) for row in drawn])
        sums += counts @ game.astype(np.float64)
    low, high = np.percentile(sums / sum(map(len, above)), [2.5, 97.5], axis=0)
    return share, low, high


def improvement(ours: Scores, theirs: Scores, resamples: int = _RESAMPLES) -> Estimate:
    """Probability that a run of ours beats one of theirs on the same game, mean over games; ties count half.

    Args:
        ours: a game's scores each.
        theirs: the same games in the same order.
        resamples: of the bootstrap.

    Source: the above; Mann & Whitney 1947, "On a Test of Whether one of Two Random Variables is Stochastically Larger
        than the Other".
    """
    generator = np.random.default_rng(0)
    values, drawn = [], np.zeros(resamples)
    for our, their in zip(ours, theirs, strict=True):
        wins = (our[:, None] > their) + 0.5 * (our[:, None] == their)  # [S, S']
        values.append(wins.mean())
        left = generator.integers(len(our), size=(resamples, len(our)))
        right = generator.integers(len(their), size=(resamples, len(their)))
        drawn += wins[left[:, :, None], right[:, None, :]].mean(axis=(1, 2))
    low, high = np.percentile(drawn / len(values), [2.5, 97.5])
    return Estimate(float(np.mean(values)), float(low), float(high))


def _resampled(scores: Scores, resamples: int) -> list[NDArray[np.float64]]:
    """[R, N] in pieces, the seeds of each game drawn with replacement."""
    generator = np.random.default_rng(0)
    at_once = max(1, _AT_ONCE // sum(map(len, scores)))
    pieces = []
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        pieces.append(
            np.concatenate([game[generator.integers(len(game), size=(size, len(game)))] for game in scores], axis=1)
        )
    return pieces
