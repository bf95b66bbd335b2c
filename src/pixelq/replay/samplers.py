"""Samplers: which transitions a batch is made of."""

import numpy as np
from numpy.typing import NDArray

from pixelq.replay.ring import Ring

__all__ = ["sample_uniform"]

_MOST_ROUNDS = 1_000


def sample_uniform(
    ring: Ring, batch_size: int, n_step: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw transitions uniformly, with replacement.

    Slots are drawn over all that is held; those that are no transition (the ring's seam, a game's final
    observation) are drawn again.

    Args:
        ring: where from.
        batch_size: how many, B.
        n_step: steps that must be known after each.
        generator: the only source of chance.

    Returns:
        Global rows [B] and games [B].

    Raises:
        ValueError: the ring holds no transition.
    """
    low, high = ring.oldest, ring.head - n_step + 1
    if high <= low:
        raise ValueError("the replay memory holds no transition yet")
    rows = np.empty(batch_size, np.int64)
    envs = np.empty(batch_size, np.int64)
    missing = np.arange(batch_size)
    for _ in range(_MOST_ROUNDS):
        rows[missing] = generator.integers(low, high, len(missing))
        envs[missing] = generator.integers(0, ring.num_envs, len(missing))
        missing = missing[~ring.is_transition(rows[missing], envs[missing], n_step)]
        if not len(missing):
            return rows, envs
    raise ValueError("the replay memory holds next to no transition")
