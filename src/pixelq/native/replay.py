"""What sampling does for each transition by itself, as kernels: with them a batch takes half as long."""

import ctypes
import functools
import mmap

import lz4.block._block as lz4_block
import numpy as np
from numpy.typing import NDArray

from pixelq.native.library import call, replay_kernels

__all__ = ["address", "can_decompress", "decompress", "has_trees", "tree_find", "tree_set"]


def has_trees() -> bool:
    """Whether there are `tree_set` and `tree_find`."""
    return replay_kernels() is not None


def can_decompress() -> bool:
    """Whether there is `decompress`."""
    return replay_kernels() is not None and _decompressor() is not None


def address(data: bytes | bytearray | mmap.mmap) -> int:
    """Where bytes lie in memory; whoever uses it must keep them, and keep them from growing."""
    return int(np.frombuffer(data, np.uint8).ctypes.data)


def decompress(
    blocks: NDArray[np.uint64], sizes: NDArray[np.int32], dictionaries: NDArray[np.uint64], planes: NDArray[np.uint8]
) -> None:
    """Undo `lz4.block.compress` of many planes, each with a dictionary of a plane's size, on all of PyTorch's threads.

    Args:
        blocks: [K] addresses of the blocks; 0 stands for a plane of zeros.
        sizes: [K] bytes of each block.
        dictionaries: [K] addresses of the dictionaries.
        planes: [K, bytes] is filled.

    Raises:
        RuntimeError: a block is damaged.
    """
    count, size = planes.shape
    assert [array.dtype.itemsize for array in (blocks, sizes, dictionaries)] == [8, 4, 8]
    assert planes.flags.c_contiguous
    assert len(blocks) == len(sizes) == len(dictionaries) == count
    arrays = (array.ctypes.data for array in (blocks, sizes, dictionaries))
    call("pixelq_decompress", _decompressor(), count, *arrays, size, planes.ctypes.data)


def tree_set(nodes: NDArray[np.float64], levels: int, leaves: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    """Give leaves [K] of a complete binary tree new values [K], and all nodes above them the sum of their children.

    Args:
        nodes: [2 · 2^levels], the root at 1, the children of n at 2n and 2n + 1.
        levels: below the root.
        leaves: their numbers, from 0.
        values: the new ones; of a leaf that occurs twice the last counts.
    """
    leaves, values = np.ascontiguousarray(leaves, np.int64), np.ascontiguousarray(values, np.float64)
    call("pixelq_tree_set", nodes.ctypes.data, levels, len(leaves), leaves.ctypes.data, values.ctypes.data)


def tree_find(nodes: NDArray[np.float64], levels: int, targets: NDArray[np.float64]) -> NDArray[np.int64]:
    """The leaves [K] in which running sums reach targets [K]; see `pixelq.replay.sumtree`."""
    targets = np.ascontiguousarray(targets, np.float64)
    leaves = np.empty(len(targets), np.int64)
    call("pixelq_tree_find", nodes.ctypes.data, levels, len(targets), targets.ctypes.data, leaves.ctypes.data)
    return leaves


@functools.cache
def _decompressor() -> int | None:
    """Address of liblz4's function, which comes with the package lz4; None if it keeps it to itself."""
    try:
        function = ctypes.CDLL(lz4_block.__file__).LZ4_decompress_safe_usingDict
    except (AttributeError, OSError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value
