"""What sampling does for each transition by itself, as kernels: with them a batch takes half as long."""

import ctypes
import functools
import mmap

import lz4.block._block as lz4_block
import numpy as np
from numpy.typing import NDArray

from pixelq.native.library import call, replay_kernels

__all__ = [
    "DecompressKernel",
    "TransitionsKernel",
    "address",
    "can_decompress",
    "has_replay_kernels",
    "tree_find",
    "tree_set",
]


def has_replay_kernels() -> bool:
    """Whether there are kernels for sampling, `DecompressKernel` not counted in."""
    return replay_kernels() is not None


def can_decompress() -> bool:
    """Whether there is `DecompressKernel`."""
    return has_replay_kernels() and _decompressor() is not None


def address(data: bytes | bytearray | mmap.mmap) -> int:
    """Where bytes lie in memory; whoever uses it must keep them, and keep them from growing."""
    return int(np.frombuffer(data, np.uint8).ctypes.data)


class _Blocks(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("starts", "sizes", "arenas", "dictionaries")),
        *((name, ctypes.c_long) for name in ("slots", "open_from", "open_to")),
        *((name, ctypes.c_void_p) for name in ("open_arena", "open_dictionary")),
        ("bytes", ctypes.c_int),
    )


class DecompressKernel:
    """Undoes `lz4.block.compress` of many planes, each with a dictionary of a plane's size, on half of the threads.

    Args:
        starts: [slots] uint32, where each slot's block begins in its segment's arena.
        sizes: [slots] uint16 bytes of the blocks.
        arenas: [segments] uint64 addresses of the segments' blocks; 0: there are none.
        dictionaries: [segments] uint64 addresses of the segments' dictionaries.
        segment: slots of a segment.

    The arrays must stay where they are; they may change.
    """

    def __init__(
        self,
        starts: NDArray[np.uint32],
        sizes: NDArray[np.uint16],
        arenas: NDArray[np.uint64],
        dictionaries: NDArray[np.uint64],
        segment: int,
    ) -> None:
        self._kept = (starts, sizes, arenas, dictionaries)  # alive, as their addresses are
        assert [array.dtype.itemsize for array in self._kept] == [4, 2, 8, 8]
        self._blocks = _Blocks(*(array.ctypes.data for array in self._kept), segment)

    def __call__(
        self,
        slots: NDArray[np.int64],
        planes: NDArray[np.uint8],
        opened: range,
        arena: bytearray | mmap.mmap,
        dictionary: bytes,
    ) -> None:
        """Read planes.

        Args:
            slots: [K]; one below 0 stands for a plane of zeros.
            planes: [K, bytes] is filled.
            opened: slots of the segment being written, for which the next two stand.
            arena: its blocks.
            dictionary: its dictionary.

        Raises:
            RuntimeError: a block is damaged, or was never written.
        """
        assert slots.dtype == np.int64
        assert slots.flags.c_contiguous
        assert planes.flags.c_contiguous
        blocks = self._blocks
        held = np.frombuffer(arena, np.uint8)  # it cannot grow, nor move, as long as this is there
        blocks.open_from, blocks.open_to = opened.start, opened.stop
        blocks.open_arena, blocks.open_dictionary = held.ctypes.data, address(dictionary)
        blocks.bytes = planes.shape[1]
        where = ctypes.byref(blocks), len(planes), slots.ctypes.data, planes.ctypes.data
        call("pixelq_decompress", _decompressor(), *where)


class _Ring(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_long),
        ("games", ctypes.c_long),
        *((name, ctypes.c_void_p) for name in ("actions", "rewards", "terminated", "truncated", "ignored", "ages")),
    )


class TransitionsKernel:
    """Reads n-step transitions from a ring, as `pixelq.replay.transitions` tells.

    Args:
        actions: [rows, games] uint8, as all of the ring but `rewards`.
        rewards: float32.
        terminated: the episode ended.
        truncated: the game was cut off.
        ignored: the action was ignored and a new game began.
        ages: steps since the game began.
        n_step: rewards summed before bootstrapping.
        gamma: discount a step.

    The arrays must stay where they are; they may change.
    """

    def __init__(
        self,
        actions: NDArray[np.uint8],
        rewards: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        ignored: NDArray[np.bool_],
        ages: NDArray[np.uint8],
        n_step: int,
        gamma: float,
    ) -> None:
        self._kept = (actions, rewards, terminated, truncated, ignored, ages)  # alive, as their addresses are
        assert [array.dtype.itemsize for array in self._kept] == [1, 4, 1, 1, 1, 1]
        assert all(array.flags.c_contiguous for array in self._kept)
        self._ring = _Ring(*actions.shape, *(array.ctypes.data for array in self._kept))
        self._rest = n_step, gamma

    def __call__(
        self, rows: NDArray[np.int64], envs: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """What `Transitions` holds, of those that begin in the given rows and games [B]."""
        count = len(rows)
        given = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(envs, np.int64)
        actions, slots = np.empty(count, np.int64), np.empty((2 * count, 4), np.int64)
        returns, discounts = np.empty((2, count), np.float32)
        arrays = (array.ctypes.data for array in (*given, actions, returns, discounts, slots))
        call("pixelq_transitions", ctypes.byref(self._ring), *self._rest, count, *arrays)
        return actions, returns, discounts, slots


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
