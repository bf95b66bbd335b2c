"""The compressed frame store: each plane an LZ4 block in host memory."""

import mmap
from typing import Any

import lz4.block
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.config import ATARI_SHAPE, ObsShape
from pixelq.memory import require_memory
from pixelq.native.replay import DecompressKernel, UnreadPlanes, address, can_decompress
from pixelq.replay.frames import NO_PLANE
from pixelq.system import anonymous_pages

__all__ = ["BLOCK_BREAKOUT", "Lz4Frames", "block_busiest", "block_most"]

# bytes of a slot, its index included
BLOCK_BREAKOUT = 450  # 330 played at random, up to 430 by an agent that breaks many bricks
_BLOCK_BUSIEST = 2_000  # the worst of ale-py's 104 games, Yars' Revenge, played at random
_SEGMENT = 4_096  # slots
_KERNELS_BLOCK = 2**16 - 1  # bytes: the largest block that the kernel knows


def block_busiest(shape: ObsShape) -> int:
    """Bytes a slot takes in the busiest of Atari's games, its place in the arena included; of other sizes in ratio."""
    return _BLOCK_BUSIEST * shape.picture_bytes // ATARI_SHAPE.picture_bytes


def block_most(shape: ObsShape) -> int:
    """Most bytes of a slot, its place in the arena included: LZ4's own bound."""
    return shape.picture_bytes + shape.picture_bytes // 255 + 16 + 6


class _Segment:
    """The blocks of consecutive slots, one after the other in one arena.

    The first plane is the dictionary that all blocks of the segment are compressed with: planes of one game share
    most of their background. It saves a fifth in Breakout and half in Seaquest, for 3 µs more a plane.
    """

    def __init__(self, dictionary: bytes) -> None:
        self.dictionary = dictionary
        self.arena: bytearray | mmap.mmap = bytearray()

    def seal(self) -> None:
        """The segment is complete: move its blocks to separate pages, which return to the system when freed."""
        # on the heap, arenas of changing sizes would leave holes
        pages = anonymous_pages(len(self.arena))
        pages[:] = self.arena
        self.arena = pages


class Lz4Frames:
    """Planes compressed without loss, in segments that are freed as a whole once all their slots are written again.

    Compression depends on the game, so the memory that planes take is known only after they are stored. At the
    start there must be room for the busiest game's planes; later, if memory is short, for each further segment.

    Args:
        slots: number of slots; memory is claimed as they are first written.
        kernels: let a kernel read them where there is one.
        shape: of the observations that pictures make up.

    Raises:
        PixelqError: not enough free memory; also by `write`.

    Source: the block format of LZ4 (https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md).
    """

    def __init__(self, slots: int, kernels: bool = True, shape: ObsShape = ATARI_SHAPE) -> None:
        require_memory(slots * block_busiest(shape), "the replay buffer")
        self._shape, self._bytes = shape, shape.picture_bytes
        short = block_most(shape) <= _KERNELS_BLOCK
        self._slots = slots
        self._starts = np.zeros(slots, np.uint32)  # of each block in its segment's arena
        self._sizes: NDArray[Any] = np.zeros(slots, np.uint16 if short else np.uint32)
        self._sealed: list[_Segment | None] = [None] * -(-slots // _SEGMENT)
        self._arenas = np.zeros(len(self._sealed), np.uint64)  # addresses of the sealed segments' bytes; 0: not there
        self._dictionaries = np.zeros(len(self._sealed), np.uint64)
        self._kernel: DecompressKernel | None = None
        if kernels and short and can_decompress():
            held = (self._starts, self._sizes, self._arenas, self._dictionaries)
            self._kernel = DecompressKernel(*held, _SEGMENT, self._bytes)
        # the segment being written; the later slots of the sealed one that it replaces stay valid
        self._open = _Segment(b"")
        self._next: int | None = None  # slot

    def write(self, first_slot: int, planes: NDArray[np.uint8]) -> None:
        """Store pictures [K, 84, 84], or [K, 3, H, W] in colour, in the slots that follow on those written before."""
        if self._next is not None and first_slot != self._next % self._slots:
            raise ValueError(f"slot {first_slot} does not follow: slot {self._next % self._slots} is next")
        planes = np.ascontiguousarray(planes).reshape(len(planes), self._bytes)
        done = 0
        while done < len(planes):  # a piece up to the segment's end, then the rest
            slot = first_slot + done
            if self._next is None or slot % _SEGMENT == 0:
                self._begin(slot, planes[done])
            end = min((slot // _SEGMENT + 1) * _SEGMENT, self._slots)
            part = planes[done : done + end - slot]
            self._append(slot, part)
            done += len(part)
            self._next = slot + len(part)
            if self._next == end:
                self._open.seal()
                self._sealed[slot // _SEGMENT] = self._open
                self._arenas[slot // _SEGMENT] = address(self._open.arena)
                self._dictionaries[slot // _SEGMENT] = address(self._open.dictionary)

    def _begin(self, slot: int, plane: NDArray[np.uint8]) -> None:
        if self._sealed[slot // _SEGMENT] is None:  # the memory grows
            require_memory(_SEGMENT * block_most(self._shape), "the next part of the replay buffer")
        self._open = _Segment(plane.tobytes())

    def _append(self, slot: int, planes: NDArray[np.uint8]) -> None:
        segment = self._open
        blocks = [lz4.block.compress(plane, store_size=False, dict=segment.dictionary) for plane in planes]
        sizes = [len(block) for block in blocks]
        to = slice(slot, slot + len(blocks))
        self._sizes[to] = sizes
        self._starts[to] = np.cumsum([len(segment.arena), *sizes[:-1]])
        assert isinstance(segment.arena, bytearray)
        segment.arena += b"".join(blocks)

    def read(self, slots: NDArray[np.int64]) -> Tensor:
        """The planes of slots [...] as a new tensor [..., 84, 84] on the CPU."""
        flat = slots.reshape(-1)
        planes = np.empty((len(flat), self._bytes), np.uint8)
        unread = self.unread(flat)
        if unread is not None:
            unread.read(planes)
        else:
            self._read_by_library(flat, planes)
        return torch.from_numpy(planes.reshape(*slots.shape, *self._shape.picture))

    def unread(self, slots: NDArray[np.int64]) -> UnreadPlanes | None:
        """The same planes for kernels that read them themselves; None if there are none."""
        if self._kernel is None:
            return None
        return self._kernel(slots, self._opened, self._open.arena, self._open.dictionary)

    @property
    def _opened(self) -> range:
        """The slots of the segment being written, as far as it goes."""
        following = self._next or 0
        return range((following - 1) // _SEGMENT * _SEGMENT, following)

    def _read_by_library(self, flat: NDArray[np.int64], planes: NDArray[np.uint8]) -> None:
        """Fill [K, bytes] with the planes of slots [K], without a kernel."""
        target = planes.reshape(-1).data
        starts = self._starts[flat]
        ends = (starts + self._sizes[flat]).tolist()
        decoded: dict[int, slice] = {}  # where the plane of a slot is already
        for index, (slot, start, end) in enumerate(zip(flat.tolist(), starts.tolist(), ends, strict=True)):
            to = slice(index * self._bytes, (index + 1) * self._bytes)
            if slot in decoded:
                target[to] = target[decoded[slot]]
            elif slot == NO_PLANE:
                planes[index] = 0
            else:
                segment = self._segment(slot)
                block = segment.arena[start:end]
                target[to] = lz4.block.decompress(block, self._bytes, dict=segment.dictionary)
                decoded[slot] = to

    def _segment(self, slot: int) -> _Segment:
        """The segment of a slot's block: the open one for the slots written so far, else a sealed one."""
        if slot in self._opened:
            return self._open
        segment = self._sealed[slot // _SEGMENT]
        assert segment is not None, f"slot {slot} was never written"
        return segment
