"""Torsos: from four planes of pixels to features."""

from torch import Tensor, nn

__all__ = ["NatureTorso"]


class NatureTorso(nn.Module):
    """Three convolutions, 8×8 by 4, 4×4 by 2, 3×3 by 1, a ReLU after each, no padding.

    Args:
        channels: filters of the three.

    Source: Mnih et al. 2015, Methods, Model architecture.
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = channels
        self.layers = nn.Sequential(
            nn.Conv2d(4, first, 8, 4),
            nn.ReLU(),
            nn.Conv2d(first, second, 4, 2),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, 1),
            nn.ReLU(),
        )
        self.features = third * 7 * 7

    def forward(self, planes: Tensor) -> Tensor:
        """[B, 4, 84, 84] pixels in 0…1 to [B, features], flattened as channels, rows, columns."""
        features: Tensor = self.layers(planes).flatten(1)
        return features
