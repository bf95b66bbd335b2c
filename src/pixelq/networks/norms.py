"""Layer normalisation: of planes and dense layers, in the two forms that PQN has, or of dense layers alone."""

from typing import Literal

from torch import Tensor, nn

__all__ = ["NormKind", "PlaneNorm", "dense_norm", "plane_norm"]

NormKind = Literal["none", "layer", "layer_per_pixel", "dense"]
# `layer` is PyTorch's default nn.LayerNorm, as in CleanRL's pqn_atari_envpool.py; `layer_per_pixel` is Flax'
# default nn.LayerNorm, as in purejaxql's pqn_atari.py, over the last axis of [B, H, W, C]; `dense` leaves the
# convolutions as they are
_EPSILON: dict[NormKind, float] = {"layer": 1e-5, "layer_per_pixel": 1e-6, "dense": 1e-5}


class PlaneNorm(nn.Module):
    """Layer normalisation of [B, C, H, W] planes, over trailing axes of their channels-last form [B, H, W, C].

    Channels-last planes need no copy. In bfloat16 the statistics are float32 inside of PyTorch's kernel.

    Args:
        shape: (H, W, C) to normalise all of a layer, (C,) to normalise each pixel; gains and biases have it too.
        epsilon: added to the variance.

    Source: Ba et al. 2016, "Layer normalization", eq. 3–4; in Q-networks Gallici et al. 2024, "Simplifying deep
    temporal difference learning".
    """

    def __init__(self, shape: tuple[int, ...], epsilon: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape, epsilon)

    def forward(self, planes: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape and type."""
        normalised: Tensor = self.norm(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normalised


def plane_norm(kind: NormKind, channels: int, size: tuple[int, int]) -> list[PlaneNorm]:
    """The norm between a convolution with this many rows and columns and its ReLU, if any."""
    if kind in ("none", "dense"):
        return []
    shape = (*size, channels) if kind == "layer" else (channels,)
    return [PlaneNorm(shape, _EPSILON[kind])]


def dense_norm(kind: NormKind, units: int) -> nn.Module:
    """The norm over a dense layer's units before its ReLU, if any.

    The gains of `dense` begin at 1/√units, so that the units together have length 1 at first. With gains of 1 they have
    length √units, and one step of Adam moves the values that many times as far.
    """
    if kind == "none":
        return nn.Identity()
    norm = nn.LayerNorm(units, _EPSILON[kind])
    if kind == "dense":
        nn.init.constant_(norm.weight, units**-0.5)
    return norm
