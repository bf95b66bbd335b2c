"""The process of one run of a sweep: it trains or continues, and ends with the process that started it.

    python -m pixelq.distributed.worker CONFIG.json RUN

Standard input is a pipe without data: it closes when the sweep ends, for any reason.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

from pixelq.config import TrainConfig, from_json
from pixelq.errors import PixelqError
from pixelq.run.reading import read_object
from pixelq.system import kill_group

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Train the run and return the exit status."""
    _end_with_parent()
    try:
        config: TrainConfig = from_json(TrainConfig, read_object(Path(sys.argv[1])))

        from pixelq.training.run import train

        return 130 if train(config, sys.argv[2], or_resume=True).interrupted else 0
    except PixelqError as error:
        print(f"pixelq: {error}", file=sys.stderr, flush=True)
        return error.exit_status


def _end_with_parent() -> None:
    """End this process and its children when the pipe ends; on Linux the kernel also does so."""
    threading.Thread(target=_wait_for_end, args=(os.dup(0),), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for_end(pipe: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(pipe, 1):
            pass
    kill_group(os.getpid())


if __name__ == "__main__":
    sys.exit(main())
