"""Training as a whole: steps a second while it learns, and what bounds them."""

import dataclasses
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from pixelq.bench.child import in_own_process, peak_resident_bytes
from pixelq.bench.env import measure_env
from pixelq.bench.roofline import matmul_flops_per_second
from pixelq.bench.workload import Cost, workload_of
from pixelq.config import TrainConfig
from pixelq.engines import make_engine
from pixelq.errors import PixelqError
from pixelq.learner import Learner
from pixelq.training.run import train

__all__ = ["TrainMeasurement", "bench_train"]

_ENDLESS = 10**15  # steps: more than are ever done
_EMULATOR_SECONDS = 1.0


class TrainMeasurement(NamedTuple):
    """A recipe that trained. A step is an agent step of one game, on Atari 4 frames."""

    preset: str
    game: str
    device: str
    precision: str
    threads: int
    envs: int
    steps: int  # that were timed
    seconds: float
    steps_per_second: float
    frames_per_second: float
    emulator_frames_per_second_per_core: float  # of as many games, played at random without learning
    flops_per_second: float
    flops_per_second_possible: float  # of a large matrix product on those threads; see `matmul_flops_per_second`
    bytes_per_second: float  # weights, gradients, moments, batches and observations, as often as read or written
    peak_resident_bytes: int | None  # with a memory of at most 10,000 transitions
    instructions: str | None  # of kernels of our own; None: the libraries' kernels


class _Timed(NamedTuple):
    steps: int
    seconds: float
    peak_resident_bytes: int | None


class _Limits(NamedTuple):
    frames_per_step: int
    frames_per_second_per_core: float
    flops_per_second: float
    step: Cost
    instructions: str | None


def bench_train(config: TrainConfig, seconds: float) -> TrainMeasurement:
    """Train a recipe for a while in one process, and measure its bounds in another.

    It is `pixelq train` itself that runs: acting, emulation, the memory, the updates at the recipe's own ratio, target
    copies, episodes and lines of metrics, in a temporary run directory. Different are: ε has its last value from the
    start; learning begins after some hundred steps, and those, with the first 20 updates, are not timed; the memory
    holds 10,000 transitions, so that it is soon as full as it gets (a full-sized one adds to the memory taken, and
    gives batches somewhat later: see `pixelq bench replay`). It leaves out checkpoints, except the first, which is
    not timed; videos; stopping when solved; and the display.

    Args:
        config: the recipe, resolved.
        seconds: for how long; the time is extended to the end of the loop's period (an update, or a rollout's).

    Raises:
        PixelqError: the recipe cannot run here, or the process was killed.
    """
    limits = in_own_process(config.preset, _measure_limits, config)
    timed = in_own_process(config.preset, _measure, config, seconds)
    speed = timed.steps / timed.seconds
    return TrainMeasurement(
        *(config.preset, config.game, config.device, config.precision, config.threads, config.envs),
        *(timed.steps, timed.seconds, speed, limits.frames_per_step * speed),
        emulator_frames_per_second_per_core=limits.frames_per_second_per_core,
        flops_per_second=limits.step.flops * speed,
        flops_per_second_possible=limits.flops_per_second,
        bytes_per_second=limits.step.bytes * speed,
        peak_resident_bytes=timed.peak_resident_bytes,
        instructions=limits.instructions,
    )


def _measure(config: TrainConfig, seconds: float) -> _Timed:
    workload = workload_of(config)
    config = dataclasses.replace(
        workload.at_once(config),
        total_steps=_ENDLESS,
        checkpoint_every_steps=_ENDLESS,
        video_every_episodes=0,
        notebook_log=False,
        stop_on="none",
    )
    watch = _Stopwatch(workload.warm_up_steps(config), workload.cycle_steps(config), seconds)
    with tempfile.TemporaryDirectory(prefix="pixelq-bench-") as folder:
        train(config, Path(folder) / "run", progress=watch)
    if watch.timed is None:
        raise PixelqError(f"{config.preset}: the run was stopped before it was measured")
    return watch.timed


def _measure_limits(config: TrainConfig) -> _Limits:
    emulator = measure_env(config.game, config.envs, config.env, config.threads, _EMULATOR_SECONDS)
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    possible = matmul_flops_per_second(device, config.precision)
    cost = workload_of(config).step_cost(config, emulator.num_actions)
    learner = Learner(config, emulator.num_actions, device, torch.Generator())
    engine = make_engine(learner, torch.Generator())
    speeds = emulator.frames_per_step, emulator.frames_per_second_per_core
    return _Limits(*speeds, possible, cost, engine.instructions)


class _Stopwatch:
    """A progress that shows nothing: it times whole periods of the loop, then stops the run as a person would."""

    def __init__(self, warm_up_steps: int, cycle_steps: int, seconds: float) -> None:
        self._warm_up_steps = warm_up_steps
        self._cycle_steps = cycle_steps
        self._seconds = seconds
        self._begin: tuple[int, float] | None = None
        self.timed: _Timed | None = None

    def advance(self, step: int) -> None:
        """Start after the warm-up, stop after the set time."""
        if step % self._cycle_steps or step < self._warm_up_steps or self.timed is not None:
            return
        now = time.perf_counter()
        if self._begin is None:
            self._begin = step, now
            return
        first, started = self._begin
        if now - started >= self._seconds:
            self.timed = _Timed(step - first, now - started, peak_resident_bytes())
            signal.raise_signal(signal.SIGTERM)

    def __enter__(self) -> Self:
        """Nothing to set up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Print nothing."""

    def restoring(self, done: int, total: int) -> None:
        """Nothing is restored."""
