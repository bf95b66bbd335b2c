"""Frame stores: where the planes of a replay memory live. One slot holds one 84×84 plane."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixelq.errors import PixelqError

__all__ = ["PLANE_BYTES", "FrameStore", "RamFrames", "available_memory", "require_memory"]

PLANE_SHAPE = (84, 84)
PLANE_BYTES = 84 * 84


class FrameStore(Protocol):
    """Planes by slot number; writing a slot again replaces its plane."""

    def write(self, first_slot: int, planes: NDArray[np.uint8]) -> None:
        """Store planes [K, 84, 84] in the slots `first_slot … first_slot + K − 1`."""

    def read(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The planes of slots [K] as a new array [K, 84, 84]."""


class RamFrames:
    """A raw uint8 array in host memory, 7,056 bytes a slot.

    Args:
        slots: number of slots; memory is claimed as they are first written.

    Raises:
        PixelqError: not enough free memory.
    """

    def __init__(self, slots: int) -> None:
        require_memory(slots * PLANE_BYTES, "the replay memory")
        self._planes = np.empty((slots, *PLANE_SHAPE), np.uint8)

    def write(self, first_slot: int, planes: NDArray[np.uint8]) -> None:
        """Store planes [K, 84, 84] in the slots from `first_slot` on."""
        self._planes[first_slot : first_slot + len(planes)] = planes

    def read(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The planes of slots [K] as a new array [K, 84, 84]."""
        return self._planes[slots]


def available_memory() -> int | None:
    """Bytes of memory that can still be taken, by the machine's and the container's account; None if unknown."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    elif "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found) if found else None


def require_memory(needed: int, purpose: str) -> None:
    """Refuse before allocating what the machine does not have.

    Args:
        needed: bytes.
        purpose: what for, in the error's text.

    Raises:
        PixelqError: more than is free.
    """
    free = available_memory()
    if free is not None and needed > free:
        raise PixelqError(
            f"{purpose} needs {needed / 1e9:.1f} GB but {free / 1e9:.1f} GB are free: lower --replay.capacity"
        )
