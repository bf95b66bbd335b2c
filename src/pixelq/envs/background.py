"""Scheduling of the games' threads, so that they do not interrupt the learner."""

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["threads_that_wait"]

_THREADS = Path("/proc/self/task")
_SLICE_NANOSECONDS = 100_000_000  # the longest that the system allows
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}  # numbers of the system call sched_setattr, which has no function


@contextlib.contextmanager
def threads_that_wait() -> Iterator[None]:
    """Threads started inside take nobody's processor when they are woken, on Linux, and are easily pushed aside.

    Otherwise a game's thread, woken by the thread that goes on to learn, takes its place at once and for as long as the
    step lasts, while the processors beside it have nothing to do yet; and a thread that is to help with learning waits
    for a game's to end its slice. Their share of the processors stays the same. So they are of the class for batches,
    and, from Linux 6.12 on, have long slices, which those of threads with shorter ones may interrupt.

    Source: sched(7), "SCHED_BATCH: Scheduling batch processes"; sched_setattr(2); "EEVDF Scheduler" in the kernel's
    documentation.
    """
    before = _threads()
    yield
    for thread in _threads() - before:
        with contextlib.suppress(OSError):  # it has ended, or this system allows nothing of the kind
            _push_nobody(thread)


def _push_nobody(thread: int) -> None:
    """Put a thread into the class for batches, with its slice; older systems take no notice of that."""
    if sys.platform == "linux":
        os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
        number = _SET_ATTRIBUTES.get(platform.machine())
        if number is None:
            return
        # size, policy, flags, nice, priority, runtime (here the slice), deadline, period
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_BATCH, 0, nice, 0, _SLICE_NANOSECONDS, 0, 0)
        ctypes.CDLL(None).syscall(number, thread, attributes, 0)


def _threads() -> set[int]:
    """Numbers of this process's threads; none where the system does not tell."""
    if not _THREADS.exists() or not hasattr(os, "SCHED_BATCH"):
        return set()
    return {int(path.name) for path in _THREADS.iterdir()}
