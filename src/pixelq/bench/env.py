"""The games alone: frames a second, in all and for each core."""

import time
from contextlib import closing
from typing import NamedTuple

import numpy as np

from pixelq.bench.child import in_own_process, peak_resident_bytes
from pixelq.config import EnvConfig
from pixelq.envs import make_envs
from pixelq.system import cores

__all__ = ["EnvMeasurement", "bench_env", "measure_env"]

_WARM_UP_TICKS = 20


class EnvMeasurement(NamedTuple):
    """N games that were played at random. A step is an agent step of one game."""

    game: str
    envs: int
    threads: int  # of the emulator
    num_actions: int
    frames_per_step: int  # 4 on Atari
    steps: int
    seconds: float
    steps_per_second: float
    frames_per_second: float
    frames_per_second_per_core: float
    bytes_per_second: float  # of observations handed over, [4, 84, 84] uint8 a step on Atari
    peak_resident_bytes: int | None


def bench_env(game: str, num_envs: int, env: EnvConfig, threads: int, seconds: float) -> EnvMeasurement:
    """Play N games at random for a while, in a separate process.

    Args:
        game: which one.
        num_envs: games played at once.
        env: how they are played.
        threads: of the emulator, at most one a game is used; 0: one a core.
        seconds: for how long.

    Raises:
        PixelqError: unknown game, or the process was killed.
    """
    return in_own_process(f"{game}, {num_envs} games", measure_env, game, num_envs, env, threads, seconds)


def measure_env(game: str, num_envs: int, env: EnvConfig, threads: int, seconds: float) -> EnvMeasurement:
    """The same in this process. Drawing actions, checking them and copying observations are in the time."""
    available = cores()
    threads = min(threads or available, num_envs)
    rng = np.random.default_rng(1)
    with closing(make_envs(game, num_envs, 1, env, threads)) as envs:
        num_actions, frame_skip = len(envs.action_meanings), envs.spec.frames_per_step
        obs = envs.reset().obs
        ticks, started, now = -_WARM_UP_TICKS, 0.0, 0.0
        while ticks <= 0 or now - started < seconds:
            if ticks == 0:
                started = time.perf_counter()
            envs.send(rng.integers(0, num_actions, num_envs))
            obs = envs.recv().obs
            now = time.perf_counter()
            ticks += 1
    spent, steps = now - started, ticks * num_envs
    frames = frame_skip * steps / spent
    return EnvMeasurement(
        *(game, num_envs, threads, num_actions, frame_skip, steps, spent, steps / spent, frames),
        frames_per_second_per_core=frames / min(threads, available),
        bytes_per_second=ticks * obs.nbytes / spent,
        peak_resident_bytes=peak_resident_bytes(),
    )
