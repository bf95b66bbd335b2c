"""The replay buffer: planes in, batches out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.config import ATARI_SHAPE, ObsShape, ReplayConfig
from pixelq.device import to_device
from pixelq.native.replay import UnreadBatch
from pixelq.replay.device_sampler import DeviceSampler
from pixelq.replay.frames import DeviceFrames
from pixelq.replay.priorities import PRIORITY_BYTES, Priorities
from pixelq.replay.ring import SCALAR_BYTES, Ring, rows_needed
from pixelq.replay.samplers import Draw, draw_uniform
from pixelq.replay.stores import describe_store, make_frames
from pixelq.replay.transitions import TransitionReader
from pixelq.types import Batch

__all__ = ["ReplayBuffer"]


class ReplayBuffer:
    """A memory of the newest transitions of N games.

    Args:
        config: capacity, frame store (decided, not `auto`) and how to sample.
        num_envs: games N.
        gamma: discount a step.
        n_step: rewards summed before bootstrapping.
        device: where batches go.
        generator: random generator of all sampling; for a sampler on the device, of its seed.
        sample_on_device: let a `DeviceSampler` do all sampling, if the planes are on the device; `draw`, `batch` and
            `learned` are then its own.
        kernels: let kernels sample on the host if there are any; the samples do not depend on it.
        shape: of the observations.

    Raises:
        PixelqError: the machine has not enough memory.

    Source: Lin 1992, "Self-improving reactive agents based on reinforcement learning, planning and teaching"; each
    plane once, stacks rebuilt, as Mnih et al. 2015.
    """

    def __init__(
        self,
        config: ReplayConfig,
        num_envs: int,
        gamma: float,
        n_step: int,
        device: torch.device,
        generator: np.random.Generator,
        sample_on_device: bool = False,
        kernels: bool = True,
        shape: ObsShape = ATARI_SHAPE,
    ) -> None:
        rows = rows_needed(config.capacity, num_envs, n_step, shape.stack)
        frames = make_frames(config.store, rows * num_envs, device, kernels, shape)
        self.ring = Ring(rows, num_envs, frames, shape)
        self._store = config.store
        self.sampler: DeviceSampler | None = None
        self._priorities: Priorities | None = None
        if sample_on_device and isinstance(frames, DeviceFrames):
            seed = int(generator.integers(2**62))
            self.sampler = DeviceSampler(self.ring, frames, config, gamma, n_step, device, seed)
        elif config.sampling == "prioritised":
            self._priorities = Priorities(self.ring, n_step, config.priority_exponent, config.priority_epsilon, kernels)
        self._read = TransitionReader(self.ring, n_step, gamma, kernels)
        self._n_step = n_step
        self._device = device
        self.generator = generator

    def __len__(self) -> int:
        """Rows with n known steps, times games: the transitions, ignored steps included."""
        return max(0, self.ring.head - self._n_step + 1 - self.ring.oldest) * self.ring.num_envs

    def describe(self) -> str:
        """Its storage and memory, in words."""
        beside = SCALAR_BYTES + (PRIORITY_BYTES if self._priorities is not None else 0)
        return describe_store(self._store, self.ring.rows * self.ring.num_envs, beside, self.ring.shape)

    def append(
        self,
        actions: NDArray[np.int64],
        rewards: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        ignored: NDArray[np.bool_],
        next_planes: NDArray[np.uint8],
    ) -> None:
        """Store a step of all games; arguments as in `Ring.append`."""
        self.ring.append(actions, rewards, terminated, truncated, ignored, next_planes)
        if self.sampler is not None:
            self.sampler.appended()
        elif self._priorities is not None:
            self._priorities.appended()

    def restart(self, planes: NDArray[np.uint8]) -> None:
        """Drop the present games, as if they were truncated, and begin others.

        Args:
            planes: [N, 84, 84] the first of the new games.
        """
        no = np.zeros(self.ring.num_envs, np.bool_)
        self.append(no.astype(np.int64), no.astype(np.float32), no, no, ~no, planes)

    def draw(self, batch_size: int, importance_exponent: float, batches: int = 1) -> Draw:
        """Draw transitions, with replacement.

        Args:
            batch_size: B.
            importance_exponent: β, for the weights of prioritised sampling; uniform ones are all 1.
            batches: number of batches, one after the other; assembling them together is faster. Each is drawn as if
                alone, but from the present priorities.

        Raises:
            ValueError: the buffer holds no transition.
        """
        if self._priorities is not None:
            return self._priorities.draw(batch_size, importance_exponent, self.generator, batches)
        return draw_uniform(self.ring, batches * batch_size, self._n_step, self.generator)

    def batch(self, draw: Draw) -> Batch:
        """The drawn transitions, on the device; shapes are in `pixelq.types.Batch`."""
        actions, returns, discounts, slots = self._read(draw.rows, draw.envs)
        obs_tm1, obs_t = to_device(self.ring.stacks(slots), self._device).chunk(2)
        return Batch(
            obs_tm1=obs_tm1,
            a_tm1=to_device(actions, self._device),
            r_t=to_device(returns, self._device),
            discount_t=to_device(discounts, self._device),
            obs_t=obs_t,
            weight=to_device(draw.weight, self._device),
        )

    def observations(self, draw: Draw) -> Tensor:
        """The observations before the drawn transitions, [B, 4, 84, 84] uint8 on the device."""
        slots = self._read(draw.rows, draw.envs)[3]
        return to_device(self.ring.stacks(slots[: len(slots) // 2]), self._device)

    def unread_batch(self, draw: Draw) -> Batch | UnreadBatch:
        """Like `batch`, for kernels that read planes themselves; they must finish before the next `append`."""
        actions, returns, discounts, slots = self._read(draw.rows, draw.envs)
        planes = self.ring.unread_stacks(slots)
        if planes is None:
            return self.batch(draw)
        obs_tm1, obs_t = planes.halves()
        a_tm1, r_t, discount_t, weight = map(torch.from_numpy, (actions, returns, discounts, draw.weight))
        return UnreadBatch(obs_tm1, a_tm1, r_t, discount_t, obs_t, weight)

    def learned(self, draw: Draw, errors: Tensor) -> None:
        """Give the buffer the errors of a batch; waits for nothing on the device.

        Args:
            draw: the batch.
            errors: [B] on any device.
        """
        if self._priorities is not None:
            self._priorities.learned(draw, errors)

    def state(self) -> dict[str, NDArray[Any]]:
        """The state to save beside the ring and the generator: none, if the host samples uniformly."""
        if self.sampler is not None:
            return self.sampler.state()
        return {} if self._priorities is None else self._priorities.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `state`, after the ring is restored.

        Raises:
            KeyError: the state is of another kind of sampling.
            ValueError: the state is of a buffer of another size.
        """
        if self.sampler is not None:
            self.sampler.restore(state)
        elif self._priorities is not None:
            self._priorities.restore(state)
