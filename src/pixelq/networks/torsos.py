"""Torsos: from four planes of pixels to features."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelq.config import ATARI_SHAPE, ObsShape
from pixelq.networks.norms import NormKind, plane_norm
from pixelq.networks.spectral import SpectralConv2d

__all__ = ["ImpalaTorso", "NatureTorso", "ResidualBlock"]


def _nature_sizes(shape: ObsShape) -> Iterator[tuple[int, int]]:
    """Rows and columns of the three Nature convolutions' outputs."""
    rows, columns = shape.height, shape.width
    for size, stride in ((8, 4), (4, 2), (3, 1)):
        rows, columns = (rows - size) // stride + 1, (columns - size) // stride + 1
        yield rows, columns


class NatureTorso(nn.Module):
    """Three convolutions, 8×8 by 4, 4×4 by 2, 3×3 by 1, a ReLU after each, no padding.

    Args:
        channels: filters of the three.
        norm: layer normalisation before each ReLU.
        shape: of the observations.

    Source: Mnih et al. 2015, Methods, Model architecture.
    """

    def __init__(self, channels: tuple[int, int, int], norm: NormKind = "none", shape: ObsShape = ATARI_SHAPE) -> None:
        super().__init__()
        first, second, third = channels
        sizes = list(_nature_sizes(shape))
        self.layers = nn.Sequential(
            _FoldingConv2d(shape.planes, first, 4),
            *plane_norm(norm, first, sizes[0]),
            nn.ReLU(),
            _FoldingConv2d(first, second, 2),
            *plane_norm(norm, second, sizes[1]),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, 1),
            *plane_norm(norm, third, sizes[2]),
            nn.ReLU(),
        )
        self.convolutions = [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]
        self.features = third * sizes[2][0] * sizes[2][1]
        self.obs_shape = shape

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type that the convolutions compute in, and that pixels must have."""
        return _dtype_of(self.layers[0])

    def forward(self, planes: Tensor) -> Tensor:
        """[B, 4, 84, 84] pixels in 0…1 to [B, features], flattened as channels, rows, columns."""
        features: Tensor = self.layers(planes).flatten(1)
        return features

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Compute in `dtype`; normalisation keeps its statistics in float32."""
        self.to(dtype)

    def fold_planes(self) -> None:
        """From now on compute the convolutions with strides as the same sums over folded planes."""
        for layer in self.layers:
            if isinstance(layer, _FoldingConv2d):
                layer.folded = True


class _FoldingConv2d(nn.Conv2d):
    """A convolution with filters twice as wide as its stride: 8×8 by 4 over pixels, 4×4 by 2 over 20×20 planes.

    Folded it is one of 2×2 by 1 over planes that are as many times smaller as the stride says, each block of pixels
    side by side as channels: the same products, summed in another order. A GPU's matrix units take channels by 8 or
    more, and add zeros to four of them; and the gradient of planes by 1 takes it a third of the time of that by 2.

    Args:
        planes: input channels.
        filters: output channels.
        stride: of both directions; must divide the planes' sizes.
    """

    folded = False

    def __init__(self, planes: int, filters: int, stride: int) -> None:
        super().__init__(planes, filters, 2 * stride, stride)

    def forward(self, planes: Tensor) -> Tensor:
        """[B, planes, S·R, S·C] to [B, filters, R − 1, C − 1] for a stride S."""
        if not self.folded:
            return super().forward(planes)
        block = self.stride[0]
        rows, columns = (side // block * block for side in planes.shape[2:])  # the filters reach no further
        planes = planes[:, :, :rows, :columns]
        return functional.conv2d(_fold(planes, block), _fold(self.weight, block), self.bias)


def _fold(planes: Tensor, block: int) -> Tensor:
    """[B, C, H, W] to [B, b·b·C, H/b, W/b], channels last: a b×b block by its rows, a pixel's planes side by side."""
    size, channels, height, width = planes.shape
    blocks = planes.reshape(size, channels, height // block, block, width // block, block)
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).permute(0, 3, 1, 2)


class ImpalaTorso(nn.Module):
    """Three stages, each a 3×3 convolution, a max-pool that halves the planes, and two residual blocks; a ReLU last.

    The max-pool, 3×3 by 2, is padded by one on each side, as PyTorch's ports have it; TensorFlow's `SAME` of the
    paper's code pads 84 and 42 rows on the far side alone. The sizes are the same: 84, 42, 21, 11.

    Args:
        channels: filters of the three stages.
        spectral_norm: divide the weights of the residual convolutions, and only these, by their spectral norm.
        max_pool: rows and columns after max-pooling the last planes; 0: leave them 11×11.
        shape: of the observations.

    Source: Espeholt et al. 2018, "IMPALA", Figure 3 (right); spectral norm and max-pool as Clark et al. 2024, "Beyond
    the Rainbow".
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        spectral_norm: bool = False,
        max_pool: int = 0,
        shape: ObsShape = ATARI_SHAPE,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = shape.planes
        rows, columns = shape.height, shape.width
        for filters in channels:
            layers += [nn.Conv2d(before, filters, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
            layers += [ResidualBlock(filters, spectral_norm), ResidualBlock(filters, spectral_norm)]
            before = filters
            rows, columns = -(-rows // 2), -(-columns // 2)
        layers.append(nn.ReLU())
        if max_pool:
            layers.append(nn.AdaptiveMaxPool2d(max_pool))
        self.layers = nn.Sequential(*layers)
        self.features = before * (max_pool**2 or rows * columns)
        self.obs_shape = shape

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type that the convolutions compute in, and that pixels must have."""
        return _dtype_of(self.layers[0])

    def forward(self, planes: Tensor) -> Tensor:
        """[B, 4, 84, 84] pixels in 0…1 to [B, features], flattened as channels, rows, columns."""
        features: Tensor = self.layers(planes).flatten(1)
        return features

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Compute in `dtype`; weights that are divided by their spectral norm stay float32, their quotient does not."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.to(dtype)

    def fold_planes(self) -> None:
        """Nothing: its convolutions have no strides."""


class ResidualBlock(nn.Module):
    """Planes plus two 3×3 convolutions of them, a ReLU before each.

    Args:
        channels: filters of both.
        spectral_norm: divide the weights of both by their spectral norm.
    """

    def __init__(self, channels: int, spectral_norm: bool) -> None:
        super().__init__()
        self.first = _residual_convolution(channels, spectral_norm)
        self.second = _residual_convolution(channels, spectral_norm)

    def forward(self, planes: Tensor) -> Tensor:
        """[B, channels, H, W] to the same shape."""
        change: Tensor = self.second(self.first(planes.relu()).relu_())
        return change.add_(planes)


def _residual_convolution(channels: int, spectral_norm: bool) -> nn.Module:
    if spectral_norm:
        return SpectralConv2d(channels, channels, 3, padding=1)
    return nn.Conv2d(channels, channels, 3, padding=1)


def _dtype_of(convolution: nn.Module) -> torch.dtype:
    assert isinstance(convolution, nn.Conv2d)
    return convolution.weight.dtype
