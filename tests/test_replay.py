"""The replay memory against a naive list that keeps every observation whole."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.testing import CounterEnv, decode
from pixelq.errors import PixelqError
from pixelq.replay import ReplayBuffer
from pixelq.replay.frames import RamFrames, require_memory
from pixelq.replay.samplers import sample_uniform

CPU = torch.device("cpu")
GAMMA = 0.9


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
    """A replay memory and its naive twin, fed with the same games."""

    def __init__(self, num_envs, capacity, n_step, seed, chances=(0.03, 0.02, 0.05), life_terminal=True):
        self.envs = CounterEnv(num_envs, seed, chances)
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
        self.buffer.ring.start(result.obs[:, -1])

    def fresh(self):
        return ReplayBuffer(self.capacity, self.envs.num_envs, GAMMA, self.n_step, np.random.default_rng(7))

    def play(self, ticks):
        for _ in range(ticks):
            actions = self.rng.integers(0, 4, self.envs.num_envs)
            self.envs.send(actions)
            result = self.envs.recv()
            lost, _ = self.tracker.update(result)
            terminated = result.terminated | lost if self.life_terminal else result.terminated
            reward = np.sign(result.reward)
            self.buffer.ring.append(actions, reward, terminated, result.truncated, result.reset, result.obs[:, -1])
            row = len(self.steps[0])
            for i, history in enumerate(self.steps):
                flags = (bool(terminated[i]), bool(result.truncated[i]), bool(result.reset[i]))
                history.append(
                    Step(self.obs[i], int(actions[i]), float(reward[i]), *flags, result.obs[i], self.started[i])
                )
                if result.reset[i]:
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
            if not history[row].ignored and max(row - 3, history[row].started) >= oldest
        }

    def check(self, rows, envs, buffer=None):
        batch = (buffer or self.buffer).batch(rows, envs, CPU)
        assert batch.obs_tm1.dtype == batch.obs_t.dtype == torch.uint8
        assert batch.a_tm1.dtype == torch.int64
        assert batch.r_t.dtype == batch.discount_t.dtype == torch.float32
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
        return twin


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_batch_equals_the_naive_lists(data):
    num_envs = data.draw(st.integers(1, 5))
    n_step = data.draw(st.integers(1, 5))
    capacity = data.draw(st.integers(num_envs * (n_step + 1), 120))
    chances = data.draw(st.sampled_from([(0.03, 0.02, 0.05), (0.3, 0.0, 0.0), (0.0, 0.3, 0.1), (0.0, 0.0, 0.0)]))
    pair = Pair(num_envs, capacity, n_step, data.draw(st.integers(0, 999)), chances, data.draw(st.booleans()))
    for ticks in data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=4)):
        pair.play(ticks)
        pair.check_all()
        allowed = pair.sampleable()
        if len(allowed) < 5:
            continue
        rows, envs = sample_uniform(pair.buffer.ring, 16, n_step, pair.buffer.generator)
        assert set(zip(rows.tolist(), envs.tolist(), strict=True)) <= allowed
        pair.check_all(pair.reloaded())


def test_uniform_sampling_draws_every_transition_equally_often():
    pair = Pair(3, 90, 1, 1)
    pair.play(200)
    allowed = sorted(pair.sampleable())
    counts = dict.fromkeys(allowed, 0)
    draws = 200 * len(allowed)
    rows, envs = sample_uniform(pair.buffer.ring, draws, 1, np.random.default_rng(0))
    for slot in zip(rows.tolist(), envs.tolist(), strict=True):
        counts[slot] += 1
    expected = draws / len(allowed)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = len(allowed) - 1
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_it_holds_at_least_its_capacity_of_transitions(num_envs):
    pair = Pair(num_envs, 100, 3, 0, chances=(0.0, 0.0, 0.0))
    pair.play(300)
    assert 100 <= len(pair.sampleable()) < 100 + 2 * num_envs


def test_a_truncated_transition_bootstraps_from_the_final_observation():
    pair = Pair(1, 50, 1, 3, chances=(0.0, 0.2, 0.0))
    pair.play(60)
    rows = [row for row, _ in sorted(pair.sampleable()) if pair.steps[0][row].truncated]
    assert rows
    for row in rows:
        batch = pair.buffer.batch(np.array([row]), np.array([0]), CPU)
        before, after = decode(batch.obs_tm1[0, -1].numpy()), decode(batch.obs_t[0, -1].numpy())
        assert batch.discount_t[0] == np.float32(GAMMA)
        assert after.tolist() == [*before[:2].tolist(), before[2] + 1]  # same game, a step later: not the next game's start


def test_sampling_goes_by_its_generator_alone():
    pair = Pair(2, 60, 1, 0)
    pair.play(50)
    pair.buffer.generator = np.random.default_rng(5)
    first = pair.buffer.sample(32, CPU)
    np.random.seed(0)
    torch.manual_seed(0)
    pair.buffer.generator = np.random.default_rng(5)
    second = pair.buffer.sample(32, CPU)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_empty_memory_says_so():
    buffer = ReplayBuffer(100, 2, GAMMA, 1, np.random.default_rng(0))
    buffer.ring.start(np.zeros((2, 84, 84), np.uint8))
    assert len(buffer) == 0
    with pytest.raises(ValueError, match="no transition yet"):
        buffer.sample(4, CPU)


def test_a_memory_of_ignored_steps_alone_says_so():
    buffer = ReplayBuffer(100, 1, GAMMA, 1, np.random.default_rng(0))
    plane, no = np.zeros((1, 84, 84), np.uint8), np.zeros(1, bool)
    buffer.ring.start(plane)
    buffer.ring.append(np.zeros(1, int), np.zeros(1, np.float32), no, no, ~no, plane)
    with pytest.raises(ValueError, match="next to no transition"):
        buffer.sample(4, CPU)


def test_rows_that_do_not_follow_are_refused():
    pair = Pair(2, 60, 1, 0)
    pair.play(20)
    rows = pair.buffer.ring.read_rows(0, 10)
    twin = pair.fresh()
    twin.ring.write_rows(0, rows)
    with pytest.raises(ValueError, match="do not follow row 10"):
        twin.ring.write_rows(11, rows)


def test_a_plane_is_stored_once():
    buffer = ReplayBuffer(100_000, 8, GAMMA, 1, np.random.default_rng(0))
    assert buffer.ring.rows * 8 * 84 * 84 <= 1.001 * 100_000 * 84 * 84  # 0.71 GB, claimed as it fills


def test_more_than_the_machine_has_is_refused_before_anything_is_allocated():
    with pytest.raises(PixelqError, match=r"the replay memory needs 7056000\.0 GB but .* lower --replay\.capacity"):
        RamFrames(10**12)
    require_memory(1, "a byte")
