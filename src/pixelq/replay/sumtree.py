"""A sum tree over numpy arrays: draws an index with a probability in proportion to its value."""

import numpy as np
from numpy.typing import NDArray

from pixelq.native.replay import has_replay_kernels, tree_find, tree_set

__all__ = ["SumTree"]


class SumTree:
    """Values at the leaves of a complete binary tree, every other node the sum of its two children.

    A parent is always computed as left + right, never by adding a difference, so a tree depends on its leaves alone:
    one rebuilt from them is bit-equal.

    Args:
        size: number of leaves, all 0 at first.
        kernels: let kernels do it where there are any; the sums are the same to the last bit.

    Source: Schaul et al. 2016, "Prioritized experience replay", appendix B.2.1.
    """

    def __init__(self, size: int, kernels: bool = True) -> None:
        self._size = size
        self._depth = max(1, (size - 1).bit_length())
        self._first = 1 << self._depth  # node of leaf 0; the root is node 1, the children of n are 2n and 2n + 1
        self._nodes = np.zeros(2 * self._first)
        self._kernels = kernels and has_replay_kernels()

    @property
    def total(self) -> float:
        """The sum of all leaves."""
        return float(self._nodes[1])

    @property
    def leaves(self) -> NDArray[np.float64]:
        """All values [size], a view not to be written to."""
        return self._nodes[self._first : self._first + self._size]

    def set(self, indices: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Give leaves [K] new values [K], none negative; of an index that occurs twice the last counts."""
        if self._kernels:
            tree_set(self._nodes, self._depth, indices, values)
            return
        nodes = indices + self._first
        self._nodes[nodes] = values
        for _ in range(self._depth):
            nodes = nodes >> 1
            left = 2 * nodes
            self._nodes[nodes] = self._nodes[left] + self._nodes[left + 1]

    def rebuild(self, leaves: NDArray[np.float64]) -> None:
        """Give all leaves [size] new values."""
        self._nodes[self._first : self._first + self._size] = leaves
        first = self._first
        while first > 1:
            below = self._nodes[first : 2 * first]
            first //= 2
            self._nodes[first : 2 * first] = below[::2] + below[1::2]

    def find(self, targets: NDArray[np.float64]) -> NDArray[np.int64]:
        """The leaves [K] in which running sums reach targets [K] of [0, total); never one of value 0.

        Raises:
            ValueError: all leaves are 0.
        """
        if not self.total > 0:
            raise ValueError("every leaf is 0")
        if self._kernels:
            return tree_find(self._nodes, self._depth, targets)
        nodes = np.ones(len(targets), np.int64)
        rest = targets.astype(np.float64)
        for _ in range(self._depth):
            nodes = 2 * nodes
            left, right = self._nodes[nodes], self._nodes[nodes + 1]
            # rounding may move a target past the last value: never enter an empty half
            turn = (rest >= left) & (right > 0)
            rest = np.where(turn, rest - left, rest)
            nodes += turn
        return nodes - self._first
