"""A sweep's budget: runs at once, memory, disk and time. Imports no torch."""

from collections.abc import Sequence
from typing import NamedTuple

from pixelq.config import PQNConfig, TrainConfig
from pixelq.memory import available_memory, format_bytes
from pixelq.sweeps.plan import PlannedRun
from pixelq.sweeps.state import RunState
from pixelq.system import cores

__all__ = ["Share", "counted", "describe", "memory_of", "share"]

_PROCESS = 600_000_000  # bytes of memory: Python, torch, networks and games
_TRANSITION = 1_500  # bytes in memory: LZ4 blocks of a busy game, and the ring's numbers
_RAW = 7_200
_TRANSITION_ON_DISK = 700
_RUN_ON_DISK = 60_000_000  # two checkpoints of networks and optimiser, metrics, videos


class Share(NamedTuple):
    """How the machine is divided."""

    jobs: int  # runs at once
    threads: int  # of each


def _transitions(config: TrainConfig) -> int:
    return 0 if isinstance(config.algo, PQNConfig) else min(config.replay.capacity, config.total_steps)


def memory_of(config: TrainConfig) -> int:
    """Bytes of host memory that a run may take, roughly and from above."""
    each = _RAW if config.replay.store == "ram" else _TRANSITION
    return _PROCESS + each * _transitions(config)


def share(runs: Sequence[PlannedRun], jobs: int | None = None) -> Share:
    """Divide cores and memory among runs.

    Args:
        runs: those left to do.
        jobs: how many at once; None: as many as cores and free memory carry.
    """
    available = cores()
    if jobs is None:
        threads = max((run.config.threads for run in runs), default=0) or 1
        jobs = max(1, available // threads)
        free, need = available_memory(), max((memory_of(run.config) for run in runs), default=1)
        if free is not None:
            jobs = max(1, min(jobs, free // need))
    jobs = max(1, min(jobs, len(runs)))
    return Share(jobs, max(1, available // jobs))


def counted(runs: int) -> str:
    """A number of runs in words."""
    return f"{runs} run{'s' * (runs != 1)}"


def describe(runs: Sequence[PlannedRun], states: Sequence[RunState], divided: Share) -> str:
    """One line: number of runs, time, memory and disk.

    Args:
        runs: all of the sweep.
        states: their states.
        divided: of `share`.
    """
    left = [(run, state) for run, state in zip(runs, states, strict=True) if state.status != "finished"]
    sizes = sorted((memory_of(run.config) for run, _ in left), reverse=True)
    disk = sum(_RUN_ON_DISK + _TRANSITION_ON_DISK * _transitions(run.config) for run, _ in left)
    steps = sum(max(0, run.config.total_steps - state.step) for run, state in left)
    seconds, done = sum(state.seconds for state in states), sum(state.step for state in states)
    if not left:
        return f"{counted(len(runs))}, all finished"
    given = sorted({run.config.threads or divided.threads for run, _ in left})
    threads = f"{'–'.join(map(str, given[:1] + given[1:][-1:]))} thread{'s' * (given[-1] > 1)}"
    time = "how long is unknown before a first run has logged"
    if done and seconds:
        minutes = steps * seconds / done / divided.jobs / 60
        time = f"about {minutes:.0f} minutes at the speed of its runs so far" if minutes >= 1 else "about a minute"
    room = f"memory about {format_bytes(sum(sizes[: divided.jobs]))}, disk about {format_bytes(disk)}"
    return (
        f"{counted(len(runs))}, {len(left)} left with {steps:,} steps; {divided.jobs} at once with {threads} each; "
        f"{time}; {room}"
    )
