"""Sampling's work for each transition as kernels: a batch takes half as long with them."""

import ctypes
import functools
import mmap
from typing import NamedTuple

import lz4.block._block as lz4_block
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixelq.native.library import address_of, call, replay_kernels

__all__ = [
    "STACK_OF_KERNELS",
    "DecompressKernel",
    "Images",
    "TransitionsKernel",
    "UnreadBatch",
    "UnreadPlanes",
    "address",
    "can_decompress",
    "has_replay_kernels",
    "images_of",
    "tree_find",
    "tree_set",
]


STACK_OF_KERNELS = 4  # pictures in an observation that kernels know


def has_replay_kernels() -> bool:
    """Whether there are kernels for sampling, `DecompressKernel` not counted in."""
    return replay_kernels() is not None


def can_decompress() -> bool:
    """Whether there is `DecompressKernel`."""
    return has_replay_kernels() and _decompressor() is not None


def address(data: bytes | bytearray | mmap.mmap) -> int:
    """The address of bytes; the caller must keep them alive and of the same size."""
    return int(np.frombuffer(data, np.uint8).ctypes.data)


class _Blocks(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("starts", "sizes", "arenas", "dictionaries")),
        *((name, ctypes.c_long) for name in ("slots", "open_from", "open_to")),
        *((name, ctypes.c_void_p) for name in ("open_arena", "open_dictionary")),
        ("bytes", ctypes.c_int),
        ("decompress", ctypes.c_void_p),
    )


class UnreadPlanes:
    """Planes that kernels read on demand; while it exists, nothing can be added to the store.

    Args:
        slots: [..., 4] of planes; a slot below 0 means a plane of zeros.
        blocks: their storage.
        kept: objects that must stay alive meanwhile.
    """

    def __init__(self, slots: NDArray[np.int64], blocks: _Blocks, kept: object) -> None:
        assert slots.dtype == np.int64
        assert slots.flags.c_contiguous
        self.slots = slots
        self._blocks = blocks
        self._kept = kept

    def __len__(self) -> int:
        return len(self.slots)

    def halves(self) -> "tuple[UnreadPlanes, UnreadPlanes]":
        """The first half and the second."""
        first, second = np.split(self.slots, 2)
        return UnreadPlanes(first, self._blocks, self._kept), UnreadPlanes(second, self._blocks, self._kept)

    @property
    def where(self) -> tuple[int, int, int]:
        """Addresses of the function that reads a plane, of its storage, and of the slots."""
        return address_of("pixelq_read_plane"), ctypes.addressof(self._blocks), self.slots.ctypes.data

    def read(self, planes: NDArray[np.uint8]) -> None:
        """Fill planes [K, bytes] with all of them, on half of the threads.

        Raises:
            RuntimeError: a block is damaged, or was never written.
        """
        assert planes.flags.c_contiguous
        assert len(planes) == self.slots.size
        blocks = ctypes.byref(self._blocks)
        call("pixelq_read_planes", blocks, len(planes), self.slots.ctypes.data, planes.ctypes.data)


class Images(ctypes.Structure):
    """Where kernels find images."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("bytes", "read", "store", "slots", "failed", "others")),
        ("first_other", ctypes.c_long),
        ("background", ctypes.c_void_p),
    )


def images_of(obs: Tensor | UnreadPlanes, others: Tensor | None = None, background: Tensor | None = None) -> Images:
    """Observations [B, 4, 84, 84] as kernels find them; they must be kept.

    Args:
        obs: bytes without holes, or unread.
        others: bytes of more observations, which follow.
        background: [1] float32, a whole number, subtracted from each pixel; None: nothing.
    """
    images = Images(None, *obs.where) if isinstance(obs, UnreadPlanes) else Images(obs.data_ptr())
    if others is not None:
        images.others, images.first_other = others.data_ptr(), len(obs)
    images.background = None if background is None else background.data_ptr()
    return images


class UnreadBatch(NamedTuple):
    """A `Batch` with the planes of its observations not read yet."""

    obs_tm1: UnreadPlanes
    a_tm1: Tensor
    r_t: Tensor
    discount_t: Tensor
    obs_t: UnreadPlanes
    weight: Tensor


class DecompressKernel:
    """Undoes `lz4.block.compress` of planes, each with a dictionary of a plane's size.

    Args:
        starts: [slots] uint32, where each slot's block begins in its segment's arena.
        sizes: [slots] uint16 bytes of the blocks.
        arenas: [segments] uint64 addresses of the segments' blocks; 0: there are none.
        dictionaries: [segments] uint64 addresses of the segments' dictionaries.
        segment: slots of a segment.
        plane_bytes: of a plane.

    The arrays must stay where they are; they may change.
    """

    def __init__(
        self,
        starts: NDArray[np.uint32],
        sizes: NDArray[np.uint16],
        arenas: NDArray[np.uint64],
        dictionaries: NDArray[np.uint64],
        segment: int,
        plane_bytes: int,
    ) -> None:
        self._kept = (starts, sizes, arenas, dictionaries)  # alive, as their addresses are
        assert [array.dtype.itemsize for array in self._kept] == [4, 2, 8, 8]
        self._places = (*(array.ctypes.data for array in self._kept), segment)
        self._plane_bytes = plane_bytes

    def __call__(
        self, slots: NDArray[np.int64], opened: range, arena: bytearray | mmap.mmap, dictionary: bytes
    ) -> UnreadPlanes:
        """Planes by their slots.

        Args:
            slots: of any shape.
            opened: slots of the segment being written, for which the next two stand.
            arena: its blocks.
            dictionary: its dictionary.
        """
        held = np.frombuffer(arena, np.uint8)  # it cannot grow, nor move, as long as this is there
        opened_at = opened.start, opened.stop, held.ctypes.data, address(dictionary)
        blocks = _Blocks(*self._places, *opened_at, self._plane_bytes, _decompressor())
        return UnreadPlanes(slots, blocks, (held, dictionary, self._kept))


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
        """The fields of `Transitions` for the given rows and games [B]."""
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
    """Address of liblz4's function, from the package lz4; None if the package does not export it."""
    try:
        function = ctypes.CDLL(lz4_block.__file__).LZ4_decompress_safe_usingDict
    except (AttributeError, OSError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value
