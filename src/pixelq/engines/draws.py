"""Updates with batches that the host draws."""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from pixelq.replay import ReplayBuffer
from pixelq.replay.samplers import Draw

__all__ = ["learn_from_draws"]

_Batches = TypeVar("_Batches")

# batches drawn, put together and learned from in one go, which is quicker; but draws know no errors of the others
_DRAWN_TOGETHER = 2


def learn_from_draws(
    memory: ReplayBuffer,
    batch_size: int,
    importance_exponent: float,
    updates: int,
    read: Callable[[Draw], _Batches],
    learn: Callable[[_Batches, int], Tensor],
) -> None:
    """Draw, learn, tell the memory, two updates at a time.

    Args:
        memory: what is drawn from.
        batch_size: transitions an update.
        importance_exponent: β, for the weights of prioritised sampling.
        updates: how many.
        read: the batches of a draw, side by side; what is not read yet keeps the memory from growing.
        learn: makes so many updates of them and gives all errors.
    """
    for done in range(0, updates, _DRAWN_TOGETHER):
        count = min(_DRAWN_TOGETHER, updates - done)
        draw = memory.draw(batch_size, importance_exponent, count)
        memory.learned(draw, learn(read(draw), count))
