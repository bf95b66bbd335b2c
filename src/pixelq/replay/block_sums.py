"""A sum tree of two levels over tensors: draws an index with a probability in proportion to its value, on a device."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["BlockSums"]


class BlockSums:
    """Values in blocks of about √size, and the sum of each block.

    A binary tree takes a few operations a level, twenty times over; two levels take a dozen in all, and each is wide,
    as a GPU likes it. Nothing here waits for the device or depends on the values, so all of it can be recorded.

    Args:
        size: number of values, all 0 at first.
        device: where they live.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._size = size
        self._width = math.isqrt(size) + 1
        blocks = size // self._width + 1  # at least one value more than asked for, which stays 0
        self._values = torch.zeros(blocks * self._width, dtype=torch.float64, device=device)
        self._sums = torch.zeros(blocks, dtype=torch.float64, device=device)

    @property
    def values(self) -> Tensor:
        """All values [size] float64, a view not to be written to."""
        return self._values[: self._size]

    def set(self, indices: Tensor, values: Tensor, keep: Tensor | None = None) -> None:
        """Give the values at indices [K] int64 new values [K] float64, none negative.

        Args:
            indices: those that occur twice, without one of them being kept, must have the same value.
            values: the new ones.
            keep: [K] bool, places that keep their value; None: none.
        """
        if keep is not None:
            # these write 0 to the value that is 0 anyway
            indices, values = indices.masked_fill(keep, self._size), values.masked_fill(keep, 0.0)
        self._values.index_copy_(0, indices, values)
        blocks = indices // self._width
        self._sums.index_copy_(0, blocks, self._blocks()[blocks].sum(dim=1))

    def rebuild(self, values: NDArray[np.float64]) -> None:
        """Give all values [size] new ones."""
        self._values[: self._size].copy_(torch.from_numpy(values))
        self._sums.copy_(self._blocks().sum(dim=1))

    def find(self, shares: Tensor) -> Tensor:
        """The indices [K] at which running sums pass shares [K] float64 of the total, each in [0, 1).

        Never one with value 0, unless all are 0.
        """
        tops = self._sums.cumsum(0)
        targets = _below(shares * tops[-1], tops[-1])
        block = torch.searchsorted(tops, targets, right=True).clamp(max=len(tops) - 1)
        rest = targets - functional.pad(tops, (1, 0))[block]
        running = self._blocks()[block].cumsum(dim=1)  # [K, width]
        rest = _below(rest, running[:, -1])
        inner = torch.searchsorted(running, rest[:, None], right=True).squeeze(1).clamp(max=self._width - 1)
        return block * self._width + inner

    def _blocks(self) -> Tensor:
        return self._values.view(-1, self._width)


def _below(targets: Tensor, bound: Tensor) -> Tensor:
    """Targets, those at a bound or beyond it, where rounding carried them, just below it."""
    return torch.minimum(targets, torch.nextafter(bound, torch.zeros_like(bound)))
