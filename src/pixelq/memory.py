"""Checks of free memory before allocation."""

import mmap
import os
import sys
from pathlib import Path

from pixelq.errors import PixelqError
from pixelq.system import address_space_left

__all__ = ["available_memory", "format_bytes", "require_memory"]


def available_memory() -> int | None:
    """Free bytes of memory, by machine, container and `ulimit -v`; None if unknown."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text("utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    elif sys.platform != "win32" and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found.append(os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text("utf-8").strip() != "max":
        found.append(int(limit.read_text("utf-8")) - int(used.read_text("utf-8")))
    left = address_space_left()
    if left is not None:
        found.append(left)
    return min(found) if found else None


def require_memory(needed: int, purpose: str, free: int | None = None) -> None:
    """Refuse a request that exceeds the free memory, before allocating.

    Args:
        needed: bytes.
        purpose: what for, in the error's text.
        free: free bytes at its destination; None: ask the machine.

    Raises:
        PixelqError: more than is free.
    """
    free = available_memory() if free is None else free
    if free is not None and needed > free:
        raise PixelqError(
            f"{purpose} needs {format_bytes(needed)} but {format_bytes(free)} are free: lower --replay.capacity"
        )


def format_bytes(count: int) -> str:
    """A number of bytes for a person: `7.1 GB`, `29 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
