"""Updates with batches that the host draws."""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from pixelq.replay import ReplayBuffer
from pixelq.replay.samplers import Draw

__all__ = ["learn_from_draws"]

_Batches = TypeVar("_Batches")

# batches drawn, assembled and learned together: faster, but a draw does not know the others' errors
_DRAWN_TOGETHER = 2


def learn_from_draws(
    memory: ReplayBuffer,
    batch_size: int,
    importance_exponent: float,
    updates: int,
    read: Callable[[Draw], _Batches],
    learn: Callable[[_Batches, int], Tensor],
) -> None:
    """Sample, learn and update priorities, two updates at a time.

    Args:
        memory: the replay buffer.
        batch_size: transitions an update.
        importance_exponent: β, for the weights of prioritised sampling.
        updates: number of updates.
        read: returns the batches of a draw, side by side; while a batch is unread, the buffer cannot grow.
        learn: runs the given number of updates on them and returns all errors.
    """
    for done in range(0, updates, _DRAWN_TOGETHER):
        count = min(_DRAWN_TOGETHER, updates - done)
        draw = memory.draw(batch_size, importance_exponent, count)
        memory.learned(draw, learn(read(draw), count))
