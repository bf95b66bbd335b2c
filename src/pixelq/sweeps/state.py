"""The states of a sweep's runs, read from their directories. Imports no torch."""

import json
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pixelq.errors import PixelqError
from pixelq.run.reading import read_object
from pixelq.sweeps.plan import PlannedRun

__all__ = ["LOGS", "RunState", "is_solved", "last_line", "run_state"]

LOGS = "logs"  # in the sweep's folder: what each run printed
_TAIL = 16_384  # bytes


class RunState(NamedTuple):
    """The state of a run."""

    status: Literal["waiting", "stopped", "finished"]
    step: int = 0
    seconds: float = 0.0  # of training
    return_per_game: float | None = None
    steps_per_second: float | None = None


def run_state(folder: Path, run: PlannedRun) -> RunState:
    """Read a run's state; a run in training is `stopped` here.

    Args:
        folder: the sweep's.
        run: one of its plan's.
    """
    path = folder / run.name
    if not (path / "config.json").is_file():
        return RunState("waiting")
    record = _last_record(path / "metrics.jsonl")
    checkpoint = _newest_checkpoint(path)
    done = checkpoint.get("solved") is True or int(checkpoint.get("step", -1)) >= run.config.total_steps
    return RunState(
        "finished" if done else "stopped",
        int(record.get("step", 0)),
        float(record.get("seconds", 0.0)),
        record.get("train/return_per_game"),
        record.get("perf/steps_per_second"),
    )


def is_solved(path: Path) -> bool:
    """Whether a run ended since it reached the return that it was to stop at.

    Args:
        path: its directory.
    """
    return _newest_checkpoint(path).get("solved") is True


def _newest_checkpoint(path: Path) -> dict[str, Any]:
    for place in sorted((path / "checkpoints").glob("step-*"), reverse=True):
        try:
            return read_object(place / "state.json")
        except PixelqError:  # being written, or damaged: the one before
            continue
    return {}


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read()
    except OSError:
        return b""


def _last_record(path: Path) -> dict[str, Any]:
    for line in reversed(_tail(path).split(b"\n")[:-1]):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            return record
    return {}


def last_line(path: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [line.strip() for line in _tail(path).decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
