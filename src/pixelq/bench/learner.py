"""The update alone: how long it takes, where the time goes, and how close it comes to the machine's limit."""

import itertools
import statistics
import time
from contextlib import closing
from typing import NamedTuple

import torch

from pixelq.bench.child import in_own_process, peak_resident_bytes
from pixelq.bench.roofline import matmul_flops_per_second, synchronise
from pixelq.bench.workload import Update, workload_of
from pixelq.config import TrainConfig
from pixelq.envs import make_envs

__all__ = ["LearnerMeasurement", "bench_learner"]

_WARM_UP_ROUNDS = 3
_LEAST_ROUNDS = 5


class LearnerMeasurement(NamedTuple):
    """Updates of a recipe on one batch on the device; times are medians."""

    preset: str
    device: str
    precision: str
    threads: int
    batch_size: int
    updates: int  # timed updates
    update_ms: float
    forward_ms: float | None  # online network, target network and loss
    backward_ms: float | None  # None (forward too) if a kernel does both passes at once
    optimiser_ms: float | None  # the rest: clipping, optimiser step, copies between precisions, logging
    flops_per_update: int
    flops_per_second: float
    flops_per_second_possible: float  # of a large matrix product on those threads; see `matmul_flops_per_second`
    bytes_per_update: int  # reads and writes of weights, gradients, moments and the batch
    peak_resident_bytes: int | None
    instructions: str | None  # of our own kernels; None: the libraries' kernels


def bench_learner(config: TrainConfig, seconds: float) -> LearnerMeasurement:
    """Update a recipe's network for a while, in a separate process.

    Args:
        config: the recipe, resolved.
        seconds: for how long.

    Raises:
        PixelqError: the process was killed.
    """
    return in_own_process(config.preset, _measure, config, seconds)


def _measure(config: TrainConfig, seconds: float) -> LearnerMeasurement:
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    with closing(make_envs(config.game, 1, 1, config.env)) as envs:
        num_actions = len(envs.action_meanings)
    update = workload_of(config).update(config, num_actions, device)
    for _ in range(_WARM_UP_ROUNDS):
        _round(update, device)
    rounds: list[tuple[float, ...]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < _LEAST_ROUNDS or time.perf_counter() < end:
        rounds.append(_round(update, device))
    peak = peak_resident_bytes()
    *passes, whole = (1e3 * statistics.median(times) for times in zip(*rounds, strict=True))
    forward, backward = passes or (None, None)
    flops = update.flops()
    return LearnerMeasurement(
        *(config.preset, config.device, config.precision, config.threads, update.batch_size, len(rounds)),
        *(whole, forward, backward, max(0.0, whole - sum(passes)) if passes else None),
        flops_per_update=flops,
        flops_per_second=flops / (whole / 1e3),
        flops_per_second_possible=matmul_flops_per_second(device, config.precision),
        bytes_per_update=update.bytes,
        peak_resident_bytes=peak,
        instructions=update.instructions,
    )


def _round(update: Update, device: torch.device) -> tuple[float, ...]:
    """Seconds of forward pass, backward pass, and whole update; only of the last if one kernel does both passes."""
    clock = [time.perf_counter()]

    def lap() -> None:
        synchronise(device)
        clock.append(time.perf_counter())

    if update.forward is not None:
        loss = update.forward()
        lap()
        loss.backward()  # type: ignore[no-untyped-call]
        del loss  # while it lives, the weights' gradients belong to this stream, and another cannot record their update
        lap()
    update.whole()
    lap()
    return tuple(end - start for start, end in itertools.pairwise(clock))
