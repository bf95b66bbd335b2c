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
    """On Linux, threads started inside do not preempt other threads when they wake, and are easily preempted.

    Without this, a game's thread that the learning thread wakes would take its processor at once and for the whole
    step, while other processors are still idle; and a thread that should help with learning would wait
    for a game's thread to end its slice. The threads' share of the processors stays the same. They use the batch class,
    and, from Linux 6.12 on, long slices, which threads with shorter slices may interrupt.

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
    """Ids of this process's threads; none if the system does not list them."""
    if not _THREADS.exists() or not hasattr(os, "SCHED_BATCH"):
        return set()
    return {int(path.name) for path in _THREADS.iterdir()}
