"""Runs a sweep on this machine: as many processes at once as it carries, each a run; all end with the sweep."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, NamedTuple

from pixelq.config import to_json
from pixelq.errors import PixelqError
from pixelq.run.rundir import RunDir
from pixelq.run.storage import storage_errors, write_atomically
from pixelq.sweeps.budget import Share, describe, share
from pixelq.sweeps.plan import Plan, PlannedRun, keep_plan, planned_runs
from pixelq.sweeps.show import Line, Show, make_show
from pixelq.sweeps.state import LOGS, RunState, last_line, run_state
from pixelq.system import kill_group
from pixelq.training.stopping import free_signals

__all__ = ["SweepResult", "run_all", "sweep"]

_TRIES = 3  # of a run that fails, in all
_LOOK_SECONDS = 0.2
_SAVE_SECONDS = 60.0


class SweepResult(NamedTuple):
    """How a sweep stands when its process stops."""

    folder: Path
    finished: tuple[str, ...]
    failed: dict[str, str]  # the last line of each
    interrupted: bool


def sweep(
    presets: Sequence[str] | Plan,
    folder: Path | str,
    *,
    games: Sequence[str] = (),
    seeds: Sequence[int] = (1,),
    settings: dict[str, Sequence[Any]] | None = None,
    jobs: int | None = None,
) -> SweepResult:
    """Train presets × games × seeds × settings, each an ordinary run directory in one folder; go on where it stopped.

    Args:
        presets: recipes by name, or a whole plan; then the next three say nothing.
        folder: where the runs go, and the plan; one that holds the same sweep already is gone on with.
        games: ROM names or Gymnasium ids; none: each preset's own.
        seeds: a run each.
        settings: values to try by an option's name, e.g. {"algo.n-step": [1, 3]}.
        jobs: runs at once; None: as many as cores and memory carry.

    Returns:
        Which runs are finished, and which failed with what.

    Raises:
        PixelqError: an unknown name, a value out of range, or a folder that holds another sweep.
        StorageError: the folder cannot be written.
    """
    plan = presets
    if not isinstance(plan, Plan):
        given = {} if settings is None else settings
        several = tuple((name, tuple(values)) for name, values in given.items())
        plan = Plan(tuple(presets), tuple(games), tuple(seeds), several)  # type: ignore[arg-type]
    if jobs is not None and jobs < 1:
        raise PixelqError(f"--jobs is {jobs}: must be at least 1")
    runs = planned_runs(plan)
    folder = Path(folder)
    keep_plan(folder, plan)
    with RunDir(folder).lock():
        return run_all(folder, runs, jobs)


def run_all(folder: Path, runs: Sequence[PlannedRun], jobs: int | None = None) -> SweepResult:
    """Run what is left of some runs.

    Args:
        folder: where their directories are or will be.
        runs: finished ones are skipped, stopped ones go on.
        jobs: runs at once; None: as many as cores and memory carry.
    """
    states = {run.name: run_state(folder, run) for run in runs}
    left = [run for run in runs if states[run.name].status != "finished"]
    divided = share(left, jobs)
    with make_show() as show, _stopping() as stop:
        show.note(describe(runs, list(states.values()), divided))
        return _Runner(folder, runs, states, divided, show, stop).work(left)


class _Stop:
    """How often the sweep was asked to stop."""

    asked = 0


@contextlib.contextmanager
def _stopping() -> Iterator[_Stop]:
    """Count the signals that ask to stop, while the block lasts; they are those that ask a run."""
    stop = _Stop()

    def count(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.asked += 1

    before = {number: signal.signal(number, count) for number in free_signals()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Child(NamedTuple):
    run: PlannedRun
    process: subprocess.Popen[bytes]
    pipe: int  # its end is the child's end
    log: IO[bytes]


class _Runner:
    def __init__(
        self,
        folder: Path,
        runs: Sequence[PlannedRun],
        states: dict[str, RunState],
        divided: Share,
        show: Show,
        stop: _Stop,
    ) -> None:
        self._folder, self._runs, self._states = folder, runs, states
        self._divided, self._show, self._stop = divided, show, stop
        self._children: list[_Child] = []
        self._tries: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._heard = 0

    def work(self, left: Sequence[PlannedRun]) -> SweepResult:
        """Start what there is room for, look after it, until nothing is left or the sweep is to stop."""
        waiting = list(left)
        try:
            while self._children or (waiting and not self._stop.asked):
                while waiting and len(self._children) < self._divided.jobs and not self._stop.asked:
                    self._start(waiting.pop(0))
                time.sleep(_LOOK_SECONDS)
                waiting += self._look_after()
                self._pass_on_stop()
                self._show.table(self._lines())
        finally:
            self._save_all()  # none is left, unless something failed here: a full disk, say
        finished = tuple(run.name for run in self._runs if self._states[run.name].status == "finished")
        for name, line in self._failed.items():
            self._show.note(f"{name} failed: {line}")
        return SweepResult(self._folder, finished, self._failed, bool(self._stop.asked))

    def _start(self, run: PlannedRun) -> None:
        logs = self._folder / LOGS
        config = dataclasses.replace(run.config, threads=run.config.threads or self._divided.threads)
        settings, log = logs / f"{run.name}.json", logs / f"{run.name}.log"
        with storage_errors(logs):
            logs.mkdir(exist_ok=True)
            write_atomically(settings, json.dumps(to_json(config)).encode())
            output = log.open("ab")
        read, write = os.pipe()
        words = [sys.executable, "-m", "pixelq.sweeps.worker", str(settings), str(self._folder / run.name)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            words, stdin=read, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        os.close(read)
        self._children.append(_Child(run, process, write, output))
        self._tries[run.name] = self._tries.get(run.name, 0) + 1

    def _look_after(self) -> list[PlannedRun]:
        """Take leave of the processes that ended; returns the runs that are to be tried again."""
        again = []
        for child in list(self._children):
            status = child.process.poll()
            name = child.run.name
            self._states[name] = run_state(self._folder, child.run)
            if status is None:
                continue
            self._children.remove(child)
            os.close(child.pipe)
            child.log.close()
            if status == 0 or self._stop.asked or self._states[name].status == "finished":
                self._show.note(f"{name}: {self._states[name].status} at step {self._states[name].step:,}")
                continue
            line = last_line(self._folder / LOGS / f"{name}.log")
            if status == 2 or self._tries[name] >= _TRIES:  # bad input stays bad
                self._failed[name] = line
            else:
                self._show.note(f"{name} failed and is tried again: {line}")
                again.append(child.run)
        return again

    def _pass_on_stop(self) -> None:
        if self._stop.asked == self._heard:
            return
        first, self._heard = self._heard == 0, self._stop.asked
        self._show.note("saving all runs; once more: stop at once" if first else "stopping at once")
        for child in self._children:
            self._end(child, at_once=not first)

    def _save_all(self) -> None:
        for child in self._children:
            self._end(child, at_once=False)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(_SAVE_SECONDS)
            self._end(child, at_once=True)

    @staticmethod
    def _end(child: _Child, at_once: bool) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if at_once:
                kill_group(child.process.pid)
            else:
                child.process.terminate()

    def _lines(self) -> list[Line]:
        training = {child.run.name for child in self._children}
        lines = []
        for run in self._runs:
            state, status = self._states[run.name], self._states[run.name].status
            if run.name in self._failed:
                lines.append(Line(run.name, "failed", run.config.total_steps, state))
            else:
                lines.append(
                    Line(run.name, "training" if run.name in training else status, run.config.total_steps, state)
                )
        return lines
