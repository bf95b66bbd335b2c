"""A naive replay buffer of lists with whole observations, beside the real one."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from pixelq.config import ObsShape, ReplayConfig
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.testing import CounterEnv
from pixelq.replay import ReplayBuffer
from pixelq.replay.device_sampler import DeviceDraw
from pixelq.replay.samplers import Draw

CPU = torch.device("cpu")
GAMMA = 0.9
STORES = ("ram", "lz4", "device")
ON_DEVICE = "device, sampled there"
ATARI = ObsShape()
# Atari's shape, and others: in colour, not square, with fewer pictures, too large for the kernels
SHAPES = (ATARI, ObsShape(4, 3, 96, 96), ObsShape(4, 1, 60, 80), ObsShape(2, 3, 36, 40), ObsShape(3, 3, 150, 160))


def make_buffer(capacity, num_envs, n_step, store="ram", sampling="uniform", generator=None, device=CPU, shape=ATARI):
    config = ReplayConfig(capacity=capacity, store="device" if store == ON_DEVICE else store, sampling=sampling)
    generator = generator or np.random.default_rng(7)
    return ReplayBuffer(config, num_envs, GAMMA, n_step, device, generator, store == ON_DEVICE, shape=shape)


def drawn(rows, envs):
    return Draw(rows, envs, np.ones(len(rows), np.float32))


def batch_at(buffer, rows, envs):
    """The batch of the given rows and games, for any sampler."""
    if buffer.sampler is None:
        return buffer.batch(drawn(rows, envs))
    ring = buffer.ring
    slots = torch.from_numpy(rows % ring.rows * ring.num_envs + envs)
    return buffer.sampler.batch(DeviceDraw(slots, torch.ones(len(rows))))


class Reshaped:
    """A `CounterEnv` with observations of another shape; pictures that differ there differ here."""

    def __init__(self, envs, shape):
        self.envs, self.shape, self.num_envs = envs, shape, envs.num_envs

    def reset(self):
        return self._reshaped(self.envs.reset())

    def send(self, actions):
        self.envs.send(actions)

    def recv(self):
        return self._reshaped(self.envs.recv())

    def _reshaped(self, result):
        if self.shape == ATARI:
            return result
        stack, channels, height, width = self.shape
        planes = np.tile(result.obs[:, -stack:], (1, 1, 2, 2))[:, :, :height, :width]
        coloured = np.stack([planes // (1 + channel) for channel in range(channels)], axis=2)
        return result._replace(obs=coloured.reshape(-1, *self.shape.obs))


class Step(NamedTuple):
    """One game's step as a naive memory keeps it."""

    obs: np.ndarray
    action: int
    reward: float
    terminated: bool
    truncated: bool
    ignored: bool
    next_obs: np.ndarray
    started: int  # row of the first observation of this game


class Pair:
    """A replay buffer and its naive twin, fed with the same games."""

    def __init__(
        self,
        num_envs,
        capacity,
        n_step,
        seed,
        chances=(0.03, 0.02, 0.05),
        life_terminal=True,
        store="ram",
        sampling="uniform",
        device=CPU,
        shape=ATARI,
    ):
        self.shape = shape
        self.kind = (store, sampling)
        self.device = device
        self.envs = Reshaped(CounterEnv(num_envs, seed, chances), shape)
        self.n_step = n_step
        self.life_terminal = life_terminal
        self.rng = np.random.default_rng(seed)
        self.capacity = capacity
        self.buffer = self.fresh()
        self.steps: list[list[Step]] = [[] for _ in range(num_envs)]
        self.tracker = EpisodeTracker(num_envs)
        result = self.envs.reset()
        self.tracker.reset(result)
        self.obs = result.obs
        self.started = [0] * num_envs
        self.buffer.ring.start(self.shape.newest(result.obs))

    def fresh(self):
        return make_buffer(
            self.capacity, self.envs.num_envs, self.n_step, *self.kind, device=self.device, shape=self.shape
        )

    def play(self, ticks):
        for _ in range(ticks):
            actions = self.rng.integers(0, 4, self.envs.num_envs)
            self.envs.send(actions)
            result = self.envs.recv()
            lost, _ = self.tracker.update(result)
            terminated = result.terminated | lost if self.life_terminal else result.terminated
            reward = np.sign(result.reward)
            self.buffer.append(
                actions, reward, terminated, result.truncated, result.reset, self.shape.newest(result.obs)
            )
            row = len(self.steps[0])
            for i, history in enumerate(self.steps):
                flags = (bool(terminated[i]), bool(result.truncated[i]), bool(result.reset[i]))
                history.append(
                    Step(self.obs[i], int(actions[i]), float(reward[i]), *flags, result.obs[i], self.started[i])
                )
                if result.reset[i]:
                    self.started[i] = row + 1
            self.obs = result.obs

    def give_up(self):
        """Begin other games in the middle of those that are played."""
        self.envs = Reshaped(CounterEnv(self.envs.num_envs, self.rng.integers(1_000)), self.shape)
        result = self.envs.reset()
        self.tracker.reset(result)
        self.buffer.restart(self.shape.newest(result.obs))
        row = len(self.steps[0])
        for i, history in enumerate(self.steps):
            if row and not history[-1].ignored and not history[-1].terminated:
                history[-1] = history[-1]._replace(truncated=True)
            history.append(Step(self.obs[i], 0, 0.0, False, False, True, result.obs[i], self.started[i]))
            self.started[i] = row + 1
        self.obs = result.obs

    def expected(self, row, env):
        """The n-step transition that begins at a row, in plain loops."""
        total, discount, history = 0.0, 1.0, self.steps[env]
        for k in range(self.n_step):
            step = history[row + k]
            total += discount * step.reward
            discount *= GAMMA
            if step.terminated:
                discount = 0.0
            if step.terminated or step.truncated:
                break
        return history[row].obs, history[row].action, total, discount, step.next_obs

    def sampleable(self):
        """Every slot that may be drawn: held with its whole stack, its n steps known, its action heeded."""
        head, rows = len(self.steps[0]), self.buffer.ring.rows
        oldest = max(0, head - rows + 1)
        return {
            (row, env)
            for env, history in enumerate(self.steps)
            for row in range(oldest, head - self.n_step + 1)
            if not history[row].ignored and max(row - self.shape.stack + 1, history[row].started) >= oldest
        }

    def check(self, rows, envs, buffer=None):
        batch = batch_at(buffer or self.buffer, rows, envs)
        assert batch.obs_tm1.dtype == batch.obs_t.dtype == torch.uint8
        assert batch.a_tm1.dtype == torch.int64
        assert batch.r_t.dtype == batch.discount_t.dtype == batch.weight.dtype == torch.float32
        assert batch.weight.shape == (len(rows),)
        for index, (row, env) in enumerate(zip(rows.tolist(), envs.tolist(), strict=True)):
            obs, action, total, discount, next_obs = self.expected(row, env)
            np.testing.assert_array_equal(batch.obs_tm1[index], obs)
            np.testing.assert_array_equal(batch.obs_t[index], next_obs)
            assert batch.a_tm1[index] == action
            assert batch.r_t[index] == np.float32(total)
            assert batch.discount_t[index] == pytest.approx(discount, rel=1e-6)

    def check_all(self, buffer=None):
        slots = sorted(self.sampleable())
        if slots:
            rows, envs = np.array(slots).T
            self.check(rows, envs, buffer)

    def reloaded(self):
        """A new memory, filled from rows as a checkpoint keeps them, in two pieces."""
        ring, twin = self.buffer.ring, self.fresh()
        middle = (ring.oldest + ring.head) // 2
        twin.ring.write_rows(ring.oldest, ring.read_rows(ring.oldest, middle))
        twin.ring.write_rows(middle, ring.read_rows(middle, ring.head))
        twin.ring.restore_head(ring.head_row())
        twin.restore(self.buffer.state())
        return twin

    def reloaded_with_generator(self):
        """The same, to continue with."""
        twin = self.reloaded()
        twin.generator = self.buffer.generator
        return twin
