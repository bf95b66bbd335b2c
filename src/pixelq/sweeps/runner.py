"""Runs many runs: as many at once as there is room for, each a process; all end with the one that runs them."""

import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

from pixelq.config import to_json
from pixelq.distributed.processes import Job, LocalProcess, Process
from pixelq.distributed.ray_cluster import RayCluster, connected
from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.run.rundir import RunDir
from pixelq.run.storage import storage_errors, write_atomically
from pixelq.sweeps.budget import Share, describe, memory_of, share
from pixelq.sweeps.plan import Plan, PlannedRun, keep_plan, planned_runs, seeds_of, several
from pixelq.sweeps.show import Line, Show, make_show
from pixelq.sweeps.state import LOGS, RunState, last_line, run_state
from pixelq.training.stopping import free_signals

__all__ = ["Orders", "SweepResult", "Work", "divide", "place", "run_all", "run_work", "sweep"]

_TRIES = 3  # of a run that fails, in all
_LOOK_SECONDS = 0.2


class SweepResult(NamedTuple):
    """The state of a sweep when its process stops."""

    folder: Path
    finished: tuple[str, ...]
    failed: dict[str, str]  # the last line of each
    interrupted: bool


def sweep(
    presets: str | Sequence[str] | Plan,
    folder: Path | str,
    *,
    games: str | Sequence[str] = (),
    seeds: int | str | Sequence[int] = 1,
    settings: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    ray: str | None = None,
) -> SweepResult:
    """Train presets × games × seeds × settings, each an ordinary run directory in one folder; continue a stopped sweep.

    Args:
        presets: recipes by name, one or several, or a whole plan, which replaces `games`, `seeds` and `settings`.
        folder: of the runs and the plan. If it already holds the same sweep, the sweep continues.
        games: ROM names or Gymnasium ids; none: each preset's own.
        seeds: one run each; "1-5" will do.
        settings: a value, or a list of values to try, by an option's name, e.g. {"algo.n-step": [1, 3]}.
        jobs: runs at once; None: as many as cores and memory allow.
        ray: the Ray cluster to send runs to, HOST:PORT, "auto" or "local"; None: this machine without Ray. All nodes
            must see the folder under the same path.

    Returns:
        The finished runs, and the failed ones with their reasons.

    Raises:
        PixelqError: an unknown name, a value out of range, or a folder that holds another sweep.
        StorageError: the folder cannot be written.
    """
    plan = presets
    if not isinstance(plan, Plan):
        given = tuple((name, several(values)) for name, values in (settings or {}).items())
        plan = Plan(several(presets), several(games), seeds_of(seeds), given)
    if jobs is not None and jobs < 1:
        raise PixelqError(f"--jobs is {jobs}: must be at least 1")
    if ray is not None:
        need("ray", "ray")
    runs = planned_runs(plan)
    folder = Path(folder)
    keep_plan(folder, plan)
    with RunDir(folder).lock(), place(ray) as cluster:
        return run_all(folder, runs, jobs, cluster)


class Orders(NamedTuple):
    """What a source of runs tells the runner."""

    stop: Collection[str] = ()  # names of runs: no more of them is needed
    notes: Sequence[str] = ()  # lines for a person


class Work(Protocol):
    """What a runner is given to do, one run after another."""

    def known(self) -> Sequence[PlannedRun]:
        """All runs so far, for the table."""

    def next(self) -> PlannedRun | None:
        """A run to start or continue, now that there is room; None: none at the moment."""

    def follow(self) -> Orders:
        """Check the runs' states and say what follows."""

    def failed(self, name: str, line: str) -> None:
        """A run is given up; its last line."""


class _All:
    """The runs of a plan."""

    def __init__(self, runs: Sequence[PlannedRun], left: Sequence[PlannedRun]) -> None:
        self._runs, self._left = runs, list(left)

    def known(self) -> Sequence[PlannedRun]:
        return self._runs

    def next(self) -> PlannedRun | None:
        return self._left.pop(0) if self._left else None

    def follow(self) -> Orders:
        return Orders()

    def failed(self, name: str, line: str) -> None:
        pass


def place(ray: str | None) -> AbstractContextManager[RayCluster | None]:
    """Where runs go: a Ray cluster for as long as the block lasts, or None for this machine.

    Args:
        ray: its address, or None.
    """
    return contextlib.nullcontext() if ray is None else connected(ray)


def divide(runs: Sequence[PlannedRun], jobs: int | None, cluster: RayCluster | None) -> Share:
    """How many runs at once, and the threads of each.

    Args:
        runs: those left to do.
        jobs: how many are wanted at once; None: as many as there is room for.
        cluster: where they go; None: this machine.
    """
    return share(runs, jobs) if cluster is None else Share(*cluster.room([run.config for run in runs], jobs))


def run_all(
    folder: Path, runs: Sequence[PlannedRun], jobs: int | None = None, cluster: RayCluster | None = None
) -> SweepResult:
    """Train some runs to their ends.

    Args:
        folder: where their directories are or will be.
        runs: finished ones are skipped, stopped ones continue.
        jobs: runs at once; None: as many as fit.
        cluster: where they go; None: this machine.
    """
    states = [run_state(folder, run) for run in runs]
    left = [run for run, state in zip(runs, states, strict=True) if state.status != "finished"]
    divided = divide(left, jobs, cluster)
    return run_work(folder, _All(runs, left), divided, cluster, describe(runs, states, divided))


def run_work(folder: Path, work: Work, divided: Share, cluster: RayCluster | None, about: str) -> SweepResult:
    """Run the runs of a source, until it has no more or the process must stop.

    Args:
        folder: where their directories are or will be.
        work: which runs, and when.
        divided: how many at once, and the threads of each.
        cluster: where they go; None: this machine.
        about: a line that describes the work.
    """
    with make_show() as show, _stopping() as stop:
        show.note(about)
        return _Runner(folder, work, divided, cluster, show, stop).work()


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


class _Runner:
    def __init__(
        self, folder: Path, work: Work, divided: Share, cluster: RayCluster | None, show: Show, stop: _Stop
    ) -> None:
        self._folder, self._work, self._divided = folder, work, divided
        self._cluster, self._show, self._stop = cluster, show, stop
        self._states = {run.name: run_state(folder, run) for run in work.known()}
        self._training: dict[str, tuple[PlannedRun, Process]] = {}
        self._again: list[PlannedRun] = []
        self._tries: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._pruned: set[str] = set()
        self._heard = 0

    def work(self) -> SweepResult:
        """Start runs while there is room and watch them, until none is left or the sweep must stop."""
        try:
            while True:
                while len(self._training) < self._divided.jobs and not self._stop.asked:
                    run = self._again.pop(0) if self._again else self._work.next()
                    if run is None:
                        break
                    self._start(run)
                if not self._training:
                    break
                time.sleep(_LOOK_SECONDS)
                self._look_after()
                self._obey(self._work.follow())
                self._pass_on_stop()
                self._show.table(self._lines())
        finally:
            self._save_all()  # none is left, unless something failed here: a full disk, say
        finished = tuple(name for name, state in self._states.items() if state.status == "finished")
        for name, line in self._failed.items():
            self._show.note(f"{name} failed: {line}")
        return SweepResult(self._folder, finished, self._failed, bool(self._stop.asked))

    def _start(self, run: PlannedRun) -> None:
        logs = self._folder / LOGS
        config = dataclasses.replace(run.config, threads=run.config.threads or self._divided.threads)
        settings, log = logs / f"{run.name}.json", logs / f"{run.name}.log"
        job = Job(config, settings, self._folder / run.name, log, memory_of(config))
        with storage_errors(logs):
            logs.mkdir(exist_ok=True)
            write_atomically(settings, json.dumps(to_json(config)).encode())
        process = LocalProcess(job) if self._cluster is None else self._cluster.start(job)
        self._training[run.name] = run, process
        self._tries[run.name] = self._tries.get(run.name, 0) + 1

    def _look_after(self) -> None:
        """Take leave of the processes that ended; what failed is tried again."""
        for name, (run, process) in list(self._training.items()):
            status = process.poll()
            self._states[name] = run_state(self._folder, run)
            if status is None:
                continue
            del self._training[name]
            process.close()
            state = self._states[name]
            if status == 0 or self._stop.asked or name in self._pruned or state.status == "finished":
                how = "pruned" if name in self._pruned and state.status != "finished" else state.status
                self._show.note(f"{name}: {how} at step {state.step:,}")
                continue
            line = last_line(self._folder / LOGS / f"{name}.log")
            if status == 2 or self._tries[name] >= _TRIES:  # bad input stays bad
                self._failed[name] = line
                self._work.failed(name, line)
            else:
                self._show.note(f"{name} failed and is tried again: {line}")
                self._again.append(run)

    def _obey(self, orders: Orders) -> None:
        for text in orders.notes:
            self._show.note(text)
        for name in set(orders.stop) - self._pruned:
            self._pruned.add(name)
            self._again = [run for run in self._again if run.name != name]
            if name in self._training:
                self._training[name][1].end(at_once=False)

    def _pass_on_stop(self) -> None:
        if self._stop.asked == self._heard:
            return
        first, self._heard = self._heard == 0, self._stop.asked
        self._show.note("saving all runs; again: stop at once" if first else "stopping at once")
        for _, process in self._training.values():
            process.end(at_once=not first)

    def _save_all(self) -> None:
        for _, process in self._training.values():
            process.end(at_once=False)
        for _, process in self._training.values():
            process.wait()
            process.end(at_once=True)

    def _lines(self) -> list[Line]:
        return [
            Line(run.name, self._status(run.name), run.config.total_steps, self._state(run.name))
            for run in self._work.known()
        ]

    def _state(self, name: str) -> RunState:
        return self._states.get(name, RunState("waiting"))

    def _status(self, name: str) -> str:
        if name in self._failed:
            return "failed"
        status = self._state(name).status
        if name in self._training:
            return "training"
        return "pruned" if name in self._pruned and status != "finished" else status
