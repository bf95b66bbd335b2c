"""`CounterEnv`'s planes decode, `Catch` can be won, and both follow the interface."""

import numpy as np
import pytest

from pixelq.envs.testing import Catch, CounterEnv, decode
from pixelq.errors import CheckpointError

KINDS = {"catch": Catch, "counter": CounterEnv}


def step(envs, actions=0):
    envs.send(np.broadcast_to(actions, envs.num_envs).astype(np.int64))
    return envs.recv()


def assert_same(left, right):
    for name, a, b in zip(left._fields, left, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_keeps_to_the_interface(kind):
    envs = KINDS[kind](5, seed=3)
    rng = np.random.default_rng(0)
    last = envs.reset()
    assert last.reset.all()
    assert [array.dtype for array in last] == [np.uint8, np.float32, np.bool_, np.bool_, np.int32, np.bool_]
    for _ in range(300):
        now = step(envs, rng.integers(0, len(envs.action_meanings), 5))
        np.testing.assert_array_equal(now.reset, last.terminated | last.truncated)
        assert now.obs.shape == (5, 4, 84, 84)
        assert not np.shares_memory(now.obs, last.obs)
        assert not now.obs[now.reset, :3].any()
        assert not now.reward[now.reset].any()
        np.testing.assert_array_equal(now.obs[~now.reset, :3], last.obs[~now.reset, 1:])
        assert now.obs[:, 3].any(axis=(1, 2)).all()
        last = now
    assert_same(envs.reset(), KINDS[kind](5, seed=3).reset())
    with pytest.raises(ValueError, match="5 numbers"):
        envs.send(np.full(5, 9))
    envs.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_run_goes_on_bit_for_bit(kind):
    run, undisturbed = KINDS[kind](4, seed=1), KINDS[kind](4, seed=1)
    run.reset()
    undisturbed.reset()
    rng = np.random.default_rng(0)
    for segment in (1, 40, 77):
        for _ in range(segment):
            actions = rng.integers(0, len(run.action_meanings), 4)
            last = step(run, actions)
            assert_same(last, step(undisturbed, actions))
        state = run.state()
        step(run)
        run = KINDS[kind](4, seed=1)
        assert_same(run.restore(state), last)
    with pytest.raises(CheckpointError, match="the checkpoint holds 4 games: this run has 3"):
        KINDS[kind](3, seed=1).restore(state)


def test_counter_planes_say_env_episode_and_age():
    envs = CounterEnv(3, seed=7)
    now = envs.reset()
    episode, age, seen = np.zeros(3, int), np.zeros(3, int), set()
    for _ in range(400):
        says = decode(now.obs)
        for i in range(3):
            for back in range(4):
                t = age[i] - back
                wanted = (i, episode[i], t) if t >= 0 else (-1, -1, -1)
                assert tuple(says[i, 3 - back]) == wanted
        seen |= {"terminated"} if now.terminated.any() else set()
        seen |= {"truncated"} if now.truncated.any() else set()
        seen |= {"life"} if (now.lives == 2).any() else set()
        now = step(envs)
        age = np.where(now.reset, 0, age + 1)
        episode += now.reset
    assert seen == {"terminated", "truncated", "life"}


def test_counter_rewards_have_both_signs_and_sizes():
    envs = CounterEnv(4, seed=1)
    envs.reset()
    assert {float(r) for _ in range(200) for r in step(envs).reward} == {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_a_damaged_plane_is_noticed():
    envs = CounterEnv(2)
    envs.reset()
    obs = step(envs).obs.copy()
    decode(obs)
    obs[1, 3, 50, 50] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        decode(obs)


def test_counter_follows_a_script():
    envs = CounterEnv(2, script=[".LT", "U."])
    envs.reset()
    results = [step(envs) for _ in range(8)]
    flags = np.stack([np.where(r.terminated, 4, 0) + np.where(r.truncated, 2, 0) + r.reset for r in results])
    np.testing.assert_array_equal(flags[:, 0], [0, 0, 4, 1, 0, 0, 4, 1])
    np.testing.assert_array_equal(flags[:, 1], [2, 1, 0, 2, 1, 0, 2, 1])
    np.testing.assert_array_equal([r.lives[0] for r in results], [3, 2, 0, 3, 3, 2, 0, 3])


def cells(planes):
    """Row and column of the ball, and the paddle's column, of planes [N, 84, 84]; -1 for a paddle under the ball."""
    board = planes[:, ::12, ::12]
    ball = np.array([np.argwhere(one == 255)[0] for one in board])
    paddle = np.array([np.flatnonzero(one[-1] == 128)[0] if (one[-1] == 128).any() else -1 for one in board])
    return ball[:, 0], ball[:, 1], paddle


def landing(column, drift, rows):
    """Where a ball comes down."""
    for _ in range(rows):
        if not 0 <= column + drift <= 6:
            drift = -drift
        column += drift
    return column


def best_actions(obs):
    """What a player who sees only the stack should do: to the middle until the drift shows, then to the landing."""
    row, column, paddle = cells(obs[:, 3])
    actions = np.zeros(len(obs), int)
    for i in range(len(obs)):
        target = 3
        if row[i] == 6:
            continue  # it has landed
        if row[i] > 0:
            before = cells(obs[i : i + 1, 2])[1][0]
            target = landing(column[i], column[i] - before, 6 - row[i])
        actions[i] = 0 if paddle[i] == target else 1 if paddle[i] < target else 2
    return actions


def play_catch(policy, games=40, num_envs=8):
    envs = Catch(num_envs, seed=5)
    now, scores, total = envs.reset(), [], np.zeros(num_envs)
    while len(scores) < games:
        now = step(envs, policy(now.obs))
        total += now.reward
        scores += [float(score) for score in total[now.terminated]]
        total[now.terminated] = 0
    return np.array(scores)


def test_catch_can_be_won_by_a_player_who_sees_the_stack():
    assert (play_catch(best_actions) == 10).all()


def test_catch_is_lost_at_random():
    rng = np.random.default_rng(0)
    scores = play_catch(lambda obs: rng.integers(0, 3, len(obs)))
    assert -10 <= scores.mean() < -4


def test_catch_needs_the_stack():
    """A player without the older planes, who stays under the ball, misses many."""

    def follow(obs):
        _, column, paddle = cells(obs[:, 3])
        return np.where((paddle == column) | (paddle < 0), 0, np.where(paddle < column, 1, 2))

    assert -4 < play_catch(follow).mean() < 7


def test_catch_drops_balls_everywhere_with_every_drift():
    envs = Catch(16, seed=0)
    envs.reset()
    state = envs.state()
    kinds = set()
    for _ in range(300):
        step(envs)
        state = envs.state()
        new = state["row"] == 0
        kinds |= set(zip(state["column"][new].tolist(), state["drift"][new].tolist(), strict=True))
    assert kinds == {(column, drift) for column in range(7) for drift in (-1, 0, 1)}
