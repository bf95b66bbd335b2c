"""A run's process: its interface for sweeps, and its form on this machine."""

import contextlib
import os
import subprocess
from pathlib import Path
from typing import NamedTuple, Protocol

from pixelq.children import module_command
from pixelq.config import TrainConfig
from pixelq.run.storage import storage_errors
from pixelq.system import kill_group

__all__ = ["Job", "LocalProcess", "Process", "worker_command"]

_SAVE_SECONDS = 60.0


class Job(NamedTuple):
    """A run to start or to continue."""

    config: TrainConfig
    settings: Path  # the config in a file
    run: Path  # its directory
    log: Path  # its output is appended here
    memory: int  # bytes it may take, roughly and from above


class Process(Protocol):
    """A run's process."""

    def poll(self) -> int | None:
        """Its exit status, None while it lives."""

    def end(self, at_once: bool) -> None:
        """Ask it to save and stop, or kill it with all that it started."""

    def wait(self) -> None:
        """Give it time to save, after it was asked to stop."""

    def close(self) -> None:
        """It has ended."""


def worker_command(settings: Path | str, run: Path | str) -> list[str]:
    """The words that start a run's process; it ends when its standard input does.

    Args:
        settings: the config in a file.
        run: its directory.
    """
    return module_command("pixelq.distributed.worker", str(settings), str(run))


class LocalProcess:
    """A run in a process on this machine, which ends with this one.

    Args:
        job: the run.
    """

    def __init__(self, job: Job) -> None:
        with storage_errors(job.log):
            self._log = job.log.open("ab")
        read, self._pipe = os.pipe()  # our end of it is the process's end
        self._process = subprocess.Popen(
            worker_command(job.settings, job.run),
            stdin=read,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        os.close(read)

    def poll(self) -> int | None:
        """Its exit status, None while it lives."""
        return self._process.poll()

    def end(self, at_once: bool) -> None:
        """Ask it to save and stop, or kill it with all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if at_once:
                kill_group(self._process.pid)
            else:
                self._process.terminate()

    def wait(self) -> None:
        """Give it time to save, after it was asked to stop."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SAVE_SECONDS)

    def close(self) -> None:
        """It has ended."""
        os.close(self._pipe)
        self._log.close()
