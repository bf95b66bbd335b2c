"""Actors in other processes without Ray: their batches, and the learner's use of them over a faulty connection."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelq.config import ATARI_SHAPE, ObsShape, ReplayConfig
from pixelq.distributed.batches import BatchError, Row, RowReader, pack
from pixelq.distributed.feed import BATCHES_AHEAD, Arrived, Feed, Lost
from pixelq.distributed.player import Player, actor_epsilon
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.testing import CounterEnv, decode
from pixelq.errors import PixelqError
from pixelq.replay import ReplayBuffer
from runs import quick

# ε of actors


def test_epsilon_is_that_of_the_paper():
    # Horgan et al. 2018, section 4.1: ε 0.4, α 7, by hand for five actors
    by_hand = [0.4, 0.4**2.75, 0.4**4.5, 0.4**6.25, 0.4**8]
    assert [actor_epsilon(number, 5) for number in range(5)] == pytest.approx(by_hand, rel=1e-12)
    assert actor_epsilon(4, 5) == pytest.approx(0.00065536, rel=1e-9)
    assert actor_epsilon(0, 1) == 0.4


# bytes of a batch


def random_rows(rng, count, games, shape):
    rows, picture = [], rng.integers(0, 256, (games, *shape.picture), dtype=np.uint8)
    for _ in range(count):
        picture = picture.copy()
        picture[..., rng.integers(shape.height), :] = rng.integers(256)
        flags = [rng.random(games) < 0.3 for _ in range(3)]
        numbers = rng.normal(size=games).astype(np.float32), rng.integers(-1, 300, games).astype(np.int32)
        rows.append(Row(rng.integers(0, 4, games).astype(np.uint8), numbers[0], *flags, numbers[1], picture))
    return rows


@pytest.mark.parametrize("shape", [ATARI_SHAPE, ObsShape(2, 3, 36, 50), ObsShape(1, 3, 210, 160)])
def test_a_batch_comes_out_as_it_went_in(shape):
    rng = np.random.default_rng(1)
    rows = random_rows(rng, 7, 3, shape)
    reader = RowReader(pack(rows), 3, 4, shape)
    for row in rows:
        for one, other in zip(row, reader.read(), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert reader.left == 0


def test_what_is_no_batch_is_refused():
    data = pack(random_rows(np.random.default_rng(2), 5, 2, ATARI_SHAPE))
    for at in (0, 5, 9, 14, 40, len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(BatchError):
            RowReader(bytes(damaged), 2, 4, ATARI_SHAPE)
    for short in (data[:3], data[:-1], data + b"x"):
        with pytest.raises(BatchError):
            RowReader(short, 2, 4, ATARI_SHAPE)
    with pytest.raises(BatchError, match="does not fit"):
        RowReader(data, 3, 4, ATARI_SHAPE)
    with pytest.raises(BatchError, match="actions"):
        RowReader(data, 2, 1, ATARI_SHAPE)


# an actor


class RandomPlaying:
    def __init__(self, games, seed):
        self._rng, self._games = np.random.default_rng(seed), games
        self.loaded = []

    def act(self, obs, life_lost):
        return self._rng.integers(0, 4, self._games)

    def load(self, weights):
        self.loaded.append(weights)


def test_a_batch_ends_after_its_steps_or_its_seconds():
    now = [0.0]

    def clock():
        now[0] += 0.1
        return now[0]

    reader = RowReader(Player(CounterEnv(2), RandomPlaying(2, 0), 6, 1e9).play(), 2, 4, ATARI_SHAPE)
    assert reader.rows == 6
    assert reader.begins_games
    player = Player(CounterEnv(2), RandomPlaying(2, 0), 32, 0.35, clock)
    player.play()
    assert RowReader(player.play(), 2, 4, ATARI_SHAPE).rows == 4


def test_an_actor_plays_as_a_training_loop_does():
    """Its rows equal the loop's: the same games, by the same actions."""
    player, envs, rng = (
        Player(CounterEnv(3, 5), RandomPlaying(3, 7), 10, 1e9),
        CounterEnv(3, 5),
        np.random.default_rng(7),
    )
    expected = [envs.reset()]
    for _ in range(29):
        envs.send(rng.integers(0, 4, 3))
        expected.append(envs.recv())
    for _ in range(3):
        reader = RowReader(player.play(), 3, 4, ATARI_SHAPE)
        while reader.left:
            row, result = reader.read(), expected.pop(0)
            np.testing.assert_array_equal(row.pictures, result.obs[:, -1])
            for name in ("reward", "terminated", "truncated", "reset", "lives"):
                np.testing.assert_array_equal(getattr(row, name), getattr(result, name))
    assert expected == []


# the way between


class FakeTransport:
    """Actors in this process, each life with its own `CounterEnv` seed; a connection that loses and reorders.

    Every picture's episode number is the life's number times 1,000 and the episode's in it.
    """

    def __init__(self, games, seed, faults=True):
        self._rng, self._games, self._faults = random.Random(seed), games, faults
        self._players, self._queues = {}, {}
        self._under_way, self.sent, self.published = [], {}, []
        self.closed = 0

    def begin(self, actor, life):
        envs = CounterEnv(self._games, seed=100 * actor + life)
        base = envs._start
        envs._start = lambda: base()._replace(episode=np.full(self._games, 1_000 * life))
        self._players[actor] = (life, Player(envs, RandomPlaying(self._games, life), 5, 1e9))
        self._queues[actor] = []

    def ask(self, actor, life, number):
        assert self._players[actor][0] == life
        self._queues[actor].append(number)
        assert len(self._queues[actor]) <= BATCHES_AHEAD

    def publish(self, weights):
        self.published.append(weights)

    def poll(self, seconds):
        for actor, queue in self._queues.items():
            while queue and self._rng.random() < 0.7:
                life, player = self._players[actor]
                number, data = queue.pop(0), player.play()
                self.sent[actor, life, number] = data
                self._send(Arrived(actor, life, number, data))
        if self._faults and self._rng.random() < 0.05:  # a process dies; its batches may still arrive, or not
            actor = self._rng.choice(list(self._players))
            self._queues[actor].clear()
            self._under_way.append(Lost(actor, self._players[actor][0], "killed"))
        self._under_way.sort(key=lambda _: self._rng.random() if self._faults else 0)
        some = self._rng.randint(0, len(self._under_way))
        came, self._under_way = self._under_way[:some], self._under_way[some:]
        return came

    def _send(self, event):
        chance = self._rng.random() if self._faults else 1
        if chance < 0.04:
            return  # lost without a word
        if chance < 0.08:
            event = event._replace(data=event.data[:-1] + bytes([event.data[-1] ^ 1]))  # damaged
        self._under_way += [event] * (2 if chance < 0.2 else 1)

    def close(self):
        self.closed += 1


class Weights:
    """A learner as far as a feed is concerned."""

    online = torch.nn.Linear(2, 1)


class Ticking:
    """A clock on which every look takes some seconds."""

    def __init__(self, seconds=2.0):
        self.now, self.seconds = 0.0, seconds

    def __call__(self):
        self.now += self.seconds
        return self.now


def feed_of(actors, games, transport, told, clock=None):
    spec = CounterEnv(1).spec
    feed = Feed(quick(envs=actors * games), actors, spec, transport, clock or Ticking())
    feed.follow(Weights, lambda: False, told.append)
    return feed


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), actors=st.integers(1, 3), games=st.integers(1, 2), n_step=st.integers(1, 4))
def test_every_row_comes_once_or_is_told_as_lost_and_nothing_crosses_a_gap(seed, actors, games, n_step):
    transport, told = FakeTransport(games, seed), []
    feed = feed_of(actors, games, transport, told)
    memory = ReplayBuffer(
        ReplayConfig(capacity=32 * actors * games, store="ram"), actors * games, 0.9, n_step,
        torch.device("cpu"), np.random.default_rng(0), kernels=False,
    )  # fmt: skip
    tracker = EpisodeTracker(actors * games)
    first = feed.reset()
    tracker.reset(first)
    memory.ring.start(first.obs[:, -1])
    seen = [[] for _ in range(actors)]  # (life, episode, t) of each actor's first game, as learned from
    steps = 0
    for _ in range(45):
        actions = feed.chosen()
        feed.send(actions)
        result = feed.recv()
        tracker.update(result)
        feed.check_valid()
        absent = feed.absent // games
        steps += actors * games - feed.absent
        present = 0
        for actor in range(actors):
            _, episode, t = decode(result.obs[actor * games, -1])
            if t >= 0:
                present += 1
                seen[actor].append((episode // 1_000, episode, t))
            else:
                assert result.reset[actor * games]
        assert present == actors - absent
        memory.append(actions, result.reward, result.terminated, result.truncated, result.reset, result.obs[:, -1])
    check_transitions(memory, n_step)

    # rows of an actor come in order, each once, with all rows of a life up to some batch's end
    for rows in seen:
        assert rows == sorted(set(rows))
        for life in {life for life, *_ in rows}:
            numbers = [(episode, t) for one, episode, t in rows if one == life]
            assert numbers[0] == (1_000 * life, 0)
            for (episode, t), following in pairwise(numbers):
                assert following in ((episode, t + 1), (episode + 1, 0))

    # the books: every request is received, lost or under way; and every loss was reported
    accounts = feed.accounts
    lives = [lane.life for lane in feed.lanes]
    assert accounts.lives == sum(lives) + actors
    assert len([line for line in told if "was lost" in line]) == sum(lives)
    assert accounts.asked == accounts.received + accounts.lost + sum(
        lane._asked - lane._expected for lane in feed.lanes
    )
    assert f"{steps:,} steps" in feed.summary()
    assert transport.published


def check_transitions(memory, n_step):
    """No stack and no n-step return of the memory holds planes of two games, or of two lives of an actor."""
    ring = memory.ring
    rows = np.repeat(np.arange(ring.oldest, ring.head), ring.num_envs)
    envs = np.tile(np.arange(ring.num_envs), ring.head - ring.oldest)
    good = ring.is_transition(rows, envs, n_step)
    if not good.any():
        return
    read = memory._read(rows[good], envs[good])
    before, after = np.split(decode(ring.stacks(read.slots).numpy()), 2)  # [K, 4, 3]
    for stacks in (before, after):
        newest = stacks[:, -1:]
        assert (newest[..., 2] >= 0).all()
        ages = newest[..., 2] + np.arange(-3, 1)  # of each plane, negative before its game
        shown = ages >= 0
        np.testing.assert_array_equal(stacks[..., 2], np.where(shown, ages, -1))
        assert (np.where(shown, stacks[..., 1], newest[..., 1]) == newest[..., 1]).all()
    np.testing.assert_array_equal(before[:, -1, 1], after[:, -1, 1])  # one episode of one life
    steps = after[:, -1, 2] - before[:, -1, 2]
    assert (steps <= n_step).all()
    assert (steps >= 0).all()
    whole = read.discounts > 0
    np.testing.assert_allclose(read.discounts[whole], 0.9 ** steps[whole], rtol=1e-6)


def test_without_faults_nothing_is_lost_and_the_queues_are_bounded():
    transport, told = FakeTransport(2, 3, faults=False), []
    feed = feed_of(3, 2, transport, told)
    feed.reset()
    for _ in range(60):
        feed.send(feed.chosen())
        feed.recv()
        assert feed.absent in (0, 2, 4, 6)
        for lane in feed.lanes:
            assert lane.batches + lane._asked - lane._expected <= BATCHES_AHEAD
    assert told == []
    accounts = feed.accounts
    assert (accounts.lost, accounts.twice, accounts.late, accounts.lives) == (0, 0, 0, 3)
    assert accounts.asked == len(transport.sent) + sum(map(len, transport._queues.values()))


class Silent(FakeTransport):
    """Its actor 1 says nothing any more after some batches."""

    def poll(self, seconds):
        events = super().poll(seconds)
        return [event for event in events if event.actor != 1 or event.life > 0 or event.number < 2]


def test_an_actor_that_falls_silent_is_replaced():
    transport, told = Silent(1, 0, faults=False), []
    feed = feed_of(2, 1, transport, told)
    feed.reset()
    for _ in range(40):
        feed.chosen()
        feed.recv()
    assert told == [
        "actor 1 was lost (nothing came for 60 s), with 3 batches of it (number 2-4); another takes its place, "
        "with new games"
    ]
    assert feed.accounts.lost == 3


class Doomed(FakeTransport):
    def poll(self, seconds):
        return [Lost(0, self._players[0][0], "out of memory")]


def test_an_actor_that_never_comes_to_play_ends_the_run():
    feed = feed_of(1, 1, Doomed(1, 0), told := [])
    feed.reset()
    with pytest.raises(PixelqError, match=r"actor 0 was lost 5 times before its first batch, last: out of memory"):
        feed.chosen()
    assert len(told) == 5


def test_whoever_asks_the_run_to_stop_need_not_wait_for_actors():
    feed = feed_of(2, 2, Silent(2, 0, faults=False), [])
    feed.follow(Weights, lambda: True, lambda line: None)
    feed.reset()
    feed._transport.poll = lambda seconds: []
    assert feed.chosen().tolist() == [0, 0, 0, 0]
    result = feed.recv()
    assert feed.absent == 4
    assert result.reset.all()


def test_a_game_that_was_given_up_counts_for_no_return():
    tracker, envs = EpisodeTracker(1), CounterEnv(1, script=["...T"])
    start = envs.reset()
    tracker.reset(start)
    envs.send(np.zeros(1, np.int64))
    tracker.update(envs.recv())
    tracker.update(start)  # another actor's
    steps = []
    for _ in range(4):
        envs.send(np.zeros(1, np.int64))
        steps += tracker.update(envs.recv())[1]
    assert [one.steps for one in steps if one.unit == "game"] == [3]


def test_means_are_of_the_games_that_are_scored():
    tracker = EpisodeTracker(2, 10, scored=np.array([False, True]))
    envs = CounterEnv(2, script=["..T", ".T"])
    tracker.reset(envs.reset())
    for _ in range(12):
        envs.send(np.zeros(2, np.int64))
        tracker.update(envs.recv())
    assert tracker.games == 7
    assert tracker.in_mean("game") == 4
