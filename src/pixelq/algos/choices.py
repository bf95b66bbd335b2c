"""Choices that several algorithms share: the penalty on an error, the values that select the next action."""

from collections.abc import Callable

import torch
from torch import Tensor

from pixelq.losses import td
from pixelq.networks import Network
from pixelq.types import Batch

__all__ = ["PENALTIES", "next_values"]


def _half_squared(error: Tensor) -> Tensor:
    return 0.5 * td.squared(error)


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "huber": td.huber,
    "mse": td.squared,
    "half_mse": _half_squared,
}


@torch.no_grad()
def next_values(online: Network, batch: Batch, generator: torch.Generator) -> Tensor:
    """The online network's values of the next observations, which select the action of double Q-learning.

    Args:
        online: the network that learns.
        batch: transitions.
        generator: random generator for noisy layers; the selection draws its own noise.

    Returns:
        [B, A] float32.

    Source: van Hasselt et al. 2016, eq. 4; noise as Fortunato et al. 2018, section 3.1, ξ''.
    """
    online.redraw_noise(generator)
    return online.q_values(batch.obs_t)
