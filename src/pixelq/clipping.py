"""The clipping of gradients by their norms."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pixelq.config import OptimiserConfig

__all__ = ["clipping_factors", "scale"]


def clipping_factors(config: OptimiserConfig, norms: Tensor) -> Tensor:
    """The factors that clip gradients.

    `per_variable` scales each gradient down to the Euclidean norm `clip_norm` if it is larger, like Keras' `clipnorm`;
    `global` scales all together so that their joint norm is at most that; `none` leaves them.

    Args:
        config: kind of clipping, and the norm.
        norms: [P] Euclidean norms of the gradients.

    Returns:
        [P] factors.

    Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", Algorithm 1.
    """
    if config.clip == "none":
        return torch.ones_like(norms)
    lengths = norms if config.clip == "per_variable" else norms.norm().expand_as(norms)
    return torch.full_like(norms, config.clip_norm) / lengths.clamp(min=config.clip_norm)


def scale(gradients: Sequence[Tensor], factors: Tensor) -> None:
    """Multiply each gradient by its factor of [P], in place."""
    for gradient, factor in zip(gradients, factors.unbind(), strict=True):
        gradient.mul_(factor)
