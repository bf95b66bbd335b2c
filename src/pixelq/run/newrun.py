"""A run's first moments: its directory is created, and removed again if the run does not start."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from pixelq.errors import PixelqError
from pixelq.run.rundir import RunDir
from pixelq.run.storage import storage_errors

__all__ = ["RUNS", "free_place", "new_run"]

RUNS = Path("runs")  # where runs go that are given no place


def free_place(name: str) -> Path:
    """Make the folder of a run that was given none: runs/NAME-TIME, with a number behind if it is there already.

    Args:
        name: the run's kind, for the error's text.

    Raises:
        StorageError: it cannot be made.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    with storage_errors(RUNS):
        RUNS.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            place = RUNS / f"{name}-{stamp}{f'-{number}' if number > 1 else ''}"
            with suppress(FileExistsError):
                place.mkdir()
                return place
    raise AssertionError  # count never ends


@contextmanager
def new_run(path: Path | str) -> Iterator[RunDir]:
    """Make the directory of a new run and be its only writer while the block lasts.

    Files of a run that ended before its `config.json` was written are removed. If the block fails before it has
    written that file, its files are removed, so that the same command can be tried again.

    Args:
        path: an empty folder, one that `is_unborn`, or a path where nothing is.

    Raises:
        PixelqError: something else is there, or another process begins a run there.
        StorageError: the disk is full or failing.
    """
    path = Path(path)
    ours = not path.exists() or not any(path.iterdir())
    run = RunDir.create(path)
    with run.lock():
        try:
            RunDir.check_new(path)  # with the lock: no other process can begin it now
            _clear(run)
            RunDir.create(path)
            yield run
        except BaseException:
            if not run.config.exists():
                with suppress(OSError):
                    _clear(run)
                    if ours:
                        (path / ".lock").unlink()
                        path.rmdir()
            raise


def _clear(run: RunDir) -> None:
    """Remove everything but the lock from a folder that holds no run."""
    if run.config.exists():
        raise PixelqError(f"{run.path} is a run")
    with storage_errors(run.path):
        for entry in run.path.iterdir():
            if entry.name == ".lock":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
