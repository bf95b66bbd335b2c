"""Threads that let others finish what they do before they begin."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["threads_that_wait"]

_THREADS = Path("/proc/self/task")


@contextlib.contextmanager
def threads_that_wait() -> Iterator[None]:
    """Threads that are started inside take nobody's processor when they are woken, on Linux: they wait for their share.

    Otherwise a game's thread, woken by the thread that goes on to learn, takes its place at once and for as long as the
    step lasts, while the processors beside it have nothing to do yet. Their share itself stays the same.

    Source: sched(7), "SCHED_BATCH: Scheduling batch processes".
    """
    before = _threads()
    yield
    for thread in _threads() - before:
        with contextlib.suppress(OSError):  # it has ended, or this system allows nothing of the kind
            os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _threads() -> set[int]:
    """Numbers of this process's threads; none where the system does not tell."""
    if not _THREADS.exists() or not hasattr(os, "SCHED_BATCH"):
        return set()
    return {int(path.name) for path in _THREADS.iterdir()}
