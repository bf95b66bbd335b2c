"""Run each measurement in its own process, free of other measurements' memory and threads."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec, TypeVar

from pixelq.errors import PixelqError

__all__ = ["in_own_process", "peak_resident_bytes"]

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
_STATUS = Path("/proc/self/status")


def in_own_process(what: str, work: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
    """Do work in a fresh process, on its main thread.

    Args:
        what: name of the measurement, for the error's text.
        work: a function of a module.
        *args: its arguments, which are pickled.
        **kwargs: likewise.

    Returns:
        Its result, also pickled.

    Raises:
        PixelqError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share its memory with this process
    with ProcessPoolExecutor(1, context, initializer=_end_with_parent) as pool:
        try:
            return pool.submit(work, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise PixelqError(f"{what}: the measuring process was killed, perhaps for its memory") from error


def _end_with_parent() -> None:
    """End this process when its parent has ended, for example by a kill; else it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def peak_resident_bytes() -> int | None:
    """Peak memory of this process in bytes; None if the system does not report it.

    It is not `ru_maxrss`, which a new process inherits from the one that started it.
    """
    if not _STATUS.exists():
        return None
    line = next((line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith("VmHWM:")), None)
    return None if line is None else 1024 * int(line.split()[1])
