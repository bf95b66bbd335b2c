"""Samplers: the choice of a batch's transitions. This one draws uniformly; `priorities` holds the other."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelq.replay.ring import Ring

__all__ = ["Draw", "draw_uniform"]

_MOST_ROUNDS = 1_000


class Draw(NamedTuple):
    """The starts of a batch's transitions, with their weights."""

    rows: NDArray[np.int64]  # [B] global
    envs: NDArray[np.int64]  # [B]
    weight: NDArray[np.float32]  # [B] importance weights, the largest 1


def draw_uniform(ring: Ring, batch_size: int, n_step: int, generator: np.random.Generator) -> Draw:
    """Draw transitions uniformly, with replacement.

    Slots are drawn over all that is held; those that are no transition (the ring's seam, a game's final
    observation) are drawn again.

    Args:
        ring: where from.
        batch_size: how many, B.
        n_step: steps that must be known after each.
        generator: the only random generator.

    Returns:
        Transitions with equal weights.

    Raises:
        ValueError: the ring holds no transition.
    """
    low, high = ring.oldest, ring.head - n_step + 1
    if high <= low:
        raise ValueError("the replay buffer holds no transition yet")
    rows = np.empty(batch_size, np.int64)
    envs = np.empty(batch_size, np.int64)
    missing = np.arange(batch_size)
    for _ in range(_MOST_ROUNDS):
        rows[missing] = generator.integers(low, high, len(missing))
        envs[missing] = generator.integers(0, ring.num_envs, len(missing))
        missing = missing[~ring.is_transition(rows[missing], envs[missing], n_step)]
        if not len(missing):
            return Draw(rows, envs, np.ones(batch_size, np.float32))
    raise ValueError("the replay buffer holds next to no transition")
