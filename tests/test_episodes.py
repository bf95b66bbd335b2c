"""`EpisodeTracker`: literal cases, and against a loop that keeps every reward in lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelq.envs import StepResult
from pixelq.envs.episodes import Episode, EpisodeTracker
from pixelq.envs.testing import CounterEnv

NO_OBS = np.zeros((1, 4, 84, 84), np.uint8)


def result(reward=0.0, lives=3, terminated=False, truncated=False, reset=False):
    """A step of one game."""
    return StepResult(
        obs=NO_OBS,
        reward=np.array([reward], np.float32),
        terminated=np.array([terminated]),
        truncated=np.array([truncated]),
        lives=np.array([lives], np.int32),
        reset=np.array([reset]),
    )


def tracked(steps, **options):
    """life_lost and the finished returns, step by step, of one game that starts with 3 lives."""
    tracker = EpisodeTracker(1, **options)
    tracker.reset(result(reset=True))
    outcomes = [tracker.update(step) for step in steps]
    return tracker, [bool(lost[0]) for lost, _ in outcomes], [episodes for _, episodes in outcomes]


def test_a_game_of_three_lives():
    tracker, lost, finished = tracked(
        [
            result(reward=7),
            result(reward=-2),
            result(reward=4, lives=2),
            result(reward=1, lives=2),
            result(lives=1),
            result(reward=3, lives=1),
            result(lives=0, terminated=True),
            result(lives=3, reset=True),
            result(reward=5, lives=3),
        ]
    )
    assert lost == [False, False, True, False, True, False, True, False, False]
    assert finished[2] == [Episode("life", 0, 1.0, 3)]
    assert finished[4] == [Episode("life", 0, 1.0, 2)]
    assert finished[6] == [Episode("life", 0, 1.0, 2), Episode("game", 0, 13.0, 7)]
    assert [i for i, episodes in enumerate(finished) if episodes] == [2, 4, 6]
    assert (tracker.games, tracker.lives) == (1, 3)
    assert tracker.mean_per_game() == 13.0
    assert tracker.mean_per_life() == 1.0


def test_lives_may_sum_raw_rewards():
    _, _, finished = tracked([result(reward=7), result(reward=-2, lives=2)], clip=False)
    assert finished[1] == [Episode("life", 0, 5.0, 2)]


def test_a_truncated_game_closes_both_returns_but_loses_no_life():
    tracker, lost, finished = tracked([result(reward=1), result(reward=1, truncated=True), result(reset=True)])
    assert lost == [False, False, False]
    assert finished[1] == [Episode("life", 0, 2.0, 2), Episode("game", 0, 2.0, 2)]
    assert (tracker.games, tracker.lives) == (1, 1)


def test_no_lives_left_counts_when_the_game_is_over():
    """Qbert shows 0 lives for some frames before it terminates."""
    _, lost, finished = tracked([result(lives=1), result(lives=0), result(lives=0), result(lives=0, terminated=True)])
    assert lost == [True, False, False, True]
    assert [len(episodes) for episodes in finished] == [1, 0, 0, 2]


def test_a_bonus_life_is_no_end():
    _, lost, _ = tracked([result(lives=4), result(lives=4), result(lives=3)])
    assert lost == [False, False, True]


def test_a_game_without_lives_is_one_life():
    tracker = EpisodeTracker(1)
    tracker.reset(result(lives=0, reset=True))
    for step in (result(reward=2, lives=0), result(reward=2, lives=0, terminated=True)):
        lost, finished = tracker.update(step)
    assert lost[0]
    assert finished == [Episode("life", 0, 2.0, 2), Episode("game", 0, 4.0, 2)]


def test_the_cap_closes_a_lifes_return_and_nothing_else():
    tracker, lost, finished = tracked([result(reward=1)] * 5 + [result(lives=2)], max_steps_per_life=3)
    assert lost == [False] * 5 + [True]
    assert finished[2] == [Episode("life", 0, 3.0, 3)]
    assert finished[5] == [Episode("life", 0, 2.0, 3)]
    assert (tracker.games, tracker.lives) == (0, 2)


def test_a_reset_forgets_what_is_unfinished():
    tracker, _, _ = tracked([result(reward=9, lives=2), result(reward=9, lives=2)])
    tracker.reset(result(lives=3, reset=True))
    _, finished = tracker.update(result(reward=1, lives=0, terminated=True))
    assert finished == [Episode("life", 0, 1.0, 1), Episode("game", 0, 1.0, 1)]
    assert tracker.lives == 2


def test_means_are_of_the_last_finished_and_unknown_before():
    tracker = EpisodeTracker(1, window=2)
    tracker.reset(result(reset=True))
    assert tracker.mean_per_game() is None
    assert tracker.mean_per_life() is None
    for reward in (10, 20, 40):
        tracker.update(result(reward=reward, lives=0, terminated=True))
        tracker.update(result(reset=True))
    assert tracker.mean_per_game() == 30.0
    assert tracker.mean_per_life() == 1.0
    assert tracker.games == 3


class Naive:
    """One game, every reward in a list."""

    def __init__(self, lives, cap, clip):
        self.lives, self.cap, self.clip = lives, cap, clip
        self.game, self.life = [], []

    def update(self, reward, terminated, truncated, lives, reset):
        if reset:
            self.lives = lives
            return False, []
        self.game.append(reward)
        self.life.append((reward > 0) - (reward < 0) if self.clip else reward)
        lost = terminated or 0 < lives < self.lives
        self.lives = lives
        finished = []
        if lost or truncated or (self.cap and len(self.life) == self.cap):
            finished.append(("life", sum(self.life), len(self.life)))
            self.life = []
        if terminated or truncated:
            finished.append(("game", sum(self.game), len(self.game)))
            self.game = []
        return lost, finished


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    num_envs=st.integers(1, 5),
    seed=st.integers(0, 2**31 - 1),
    chances=st.tuples(*[st.floats(0, 0.3)] * 3),
    window=st.integers(1, 7),
    cap=st.integers(0, 6),
    clip=st.booleans(),
    restart=st.integers(0, 60),
)
def test_equals_a_loop_over_lists(num_envs, seed, chances, window, cap, clip, restart):
    envs = CounterEnv(num_envs, seed, chances)
    tracker = EpisodeTracker(num_envs, window, cap, clip)
    first = envs.reset()
    tracker.reset(first)
    naive = [Naive(int(lives), cap, clip) for lives in first.lives]
    seen = {"game": [], "life": []}
    for tick in range(60):
        envs.send(np.zeros(num_envs, np.int64))
        now = envs.recv()
        lost, finished = tracker.update(now)
        for i in range(num_envs):
            wanted = naive[i].update(*(array[i].item() for array in now[1:]))
            assert lost[i] == wanted[0]
            assert [(e.unit, e.total, e.steps) for e in finished if e.env == i] == wanted[1]
        for episode in finished:
            seen[episode.unit].append(episode.total)
        if tick == restart:
            state = tracker.state()
            tracker.update(now)  # what comes after is not in the state
            tracker = EpisodeTracker(num_envs, window, cap, clip)
            tracker.restore(state)
        assert (tracker.games, tracker.lives) == (len(seen["game"]), len(seen["life"]))
        for unit, mean in (("game", tracker.mean_per_game()), ("life", tracker.mean_per_life())):
            last = seen[unit][-window:]
            assert mean == (pytest.approx(np.mean(last)) if last else None)


def test_the_state_is_plain_arrays():
    tracker, _, _ = tracked([result(reward=9, lives=2)])
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in tracker.state().values())
