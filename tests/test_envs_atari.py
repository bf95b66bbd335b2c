"""`AtariEnvs`: its results, and that its state restores games bit for bit."""

import ctypes
import os
import platform
import struct
from itertools import pairwise

import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv

from pixelq.config import EnvConfig, TrainConfig
from pixelq.envs import make_envs
from pixelq.envs.atari import AtariEnvs
from pixelq.envs.fire import fire_index
from pixelq.envs.interface import game_seed
from pixelq.errors import CheckpointError, PixelqError
from pixelq.training.parts import resolve

STICKY = EnvConfig(sticky=0.25, max_frames_per_game=1_001)  # short games, cut in mid-step


def make(game="breakout", num_envs=2, seed=1, env=STICKY):
    return AtariEnvs(game, num_envs, seed, env, 1)


def step(envs, actions):
    envs.send(np.broadcast_to(actions, envs.num_envs).astype(np.int64))
    return envs.recv()


def random_actions(envs, rng):
    return rng.integers(0, len(envs.action_meanings), envs.num_envs)


def assert_same(left, right):
    for name, a, b in zip(left._fields, left, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.fixture(scope="module")
def breakout():
    """Two games of Breakout without chance; each test resets them itself."""
    envs = make(env=EnvConfig())
    yield envs
    envs.close()


@pytest.mark.slow
def test_a_reset_starts_every_game(breakout):
    result = breakout.reset()
    assert result.obs.shape == (2, 4, 84, 84)
    dtypes = [array.dtype for array in result]
    assert dtypes == [np.uint8, np.float32, np.bool_, np.bool_, np.int32, np.bool_]
    assert result.reset.all()
    assert not result.reward.any()
    assert not result.terminated.any()
    assert not result.truncated.any()
    assert list(result.lives) == [5, 5]
    assert not result.obs[:, :3].any()
    assert_same(result, breakout.reset())


@pytest.mark.slow
def test_the_step_after_a_game_is_marked_reset(breakout):
    result, before = breakout.reset(), None
    rng = np.random.default_rng(0)
    resets = 0
    for _ in range(500):
        before, result = result, step(breakout, random_actions(breakout, rng))
        np.testing.assert_array_equal(result.reset, before.terminated | before.truncated)
        assert not result.reward[result.reset].any()
        assert not result.obs[result.reset, :3].any()
        assert (result.lives[result.reset] == 5).all()
        resets += result.reset.sum()
    assert resets >= 2


@pytest.mark.slow
def test_rewards_are_raw_scores():
    envs = make("qbert", env=EnvConfig())
    envs.reset()
    rng = np.random.default_rng(0)
    rewards = np.stack([step(envs, random_actions(envs, rng)).reward for _ in range(150)])
    assert rewards.max() >= 25
    envs.close()


def test_negative_scores_keep_their_sign():
    envs = make("pong", num_envs=1, env=EnvConfig())
    envs.reset()
    assert min(step(envs, 0).reward[0] for _ in range(100)) == -1
    envs.close()


@pytest.mark.slow
def test_games_differ_and_follow_from_the_seed(breakout):
    first = breakout.reset()
    other, same = make(seed=2, env=EnvConfig()), make(seed=1, env=EnvConfig())
    assert_same(first, same.reset())
    seeds = {int(envs.state()["seeds"][i]) for envs in (same, other) if envs.reset() for i in range(2)}
    assert len(seeds) == 4
    other.close()
    same.close()


def test_game_seeds_are_int32_and_never_negative():
    seeds = {game_seed(run, env, count) for run in (0, 1, 2**31 - 1) for env in range(20) for count in range(20)}
    assert len(seeds) == 1_200
    assert 0 <= min(seeds) <= max(seeds) < 2**31


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.slow
def test_threads_change_nothing(threads):
    one, many = make("ms_pacman", 3), AtariEnvs("ms_pacman", 3, 1, STICKY, threads)
    rng = np.random.default_rng(0)
    assert_same(one.reset(), many.reset())
    for _ in range(100):
        actions = random_actions(one, rng)
        assert_same(step(one, actions), step(many, actions))


def test_actions_are_known_by_meaning(breakout):
    assert breakout.action_meanings == ("NOOP", "FIRE", "RIGHT", "LEFT")
    for game, fire in (("boxing", 1), ("freeway", None), ("backgammon", 0)):
        assert fire_index(make(game, num_envs=1).action_meanings) == fire
    everything = make(num_envs=1, env=EnvConfig(full_action_space=True)).action_meanings
    assert len(everything) == len(set(everything)) == 18


@pytest.mark.parametrize("fire", [True, False])
def test_fire_at_start_is_an_option(fire):
    envs = make(num_envs=1, env=EnvConfig(fire_at_start=fire, noop_max=0))
    envs.reset()
    planes = [step(envs, 0).obs[0, -1, 35:75] for _ in range(20)]  # between the wall and the paddle
    assert any((a != b).any() for a, b in pairwise(planes)) == fire


@pytest.mark.parametrize("actions", [np.array([0, 4]), np.array([-1, 0]), np.array([0]), np.array([0, 0, 0])], ids=str)
def test_wrong_actions_are_refused_before_the_emulator_sees_them(breakout, actions):
    breakout.reset()
    with pytest.raises(ValueError, match="actions must be 2 numbers from 0 to 3"):
        breakout.send(actions)
    step(breakout, 0)


def test_send_and_recv_take_turns(breakout):
    breakout.reset()
    with pytest.raises(RuntimeError):
        breakout.recv()
    breakout.send(np.zeros(2, np.int64))
    for call in (lambda: breakout.send(np.zeros(2, np.int64)), breakout.state):
        with pytest.raises(RuntimeError):
            call()
    breakout.recv()


def test_games_must_be_started_first():
    envs = make(num_envs=1)
    for call in (envs.state, lambda: envs.send(np.zeros(1, np.int64))):
        with pytest.raises(RuntimeError):
            call()
    envs.close()
    envs.close()


def test_closing_between_send_and_recv_is_safe():
    envs = make()
    envs.reset()
    envs.send(np.zeros(2, np.int64))
    envs.close()


@pytest.mark.slow
def test_make_envs_takes_names_and_ids():
    for game, sticky, differs in (
        ("breakout", None, False),
        ("ALE/Breakout-v5", None, True),
        ("BreakoutNoFrameskip-v4", None, False),
        ("ALE/Breakout-v5", 0.0, False),
        ("breakout", 0.25, True),
    ):
        envs = make_envs(game, 1, 3, EnvConfig(sticky=sticky, noop_max=0), threads=1)
        plain = make(num_envs=1, seed=3, env=EnvConfig(noop_max=0))
        envs.reset()
        plain.reset()
        pairs = [(step(envs, i % 4), step(plain, i % 4)) for i in range(60)]
        assert any((a.obs != b.obs).any() for a, b in pairs) == differs
    assert make_envs("catch", 2, 0, EnvConfig()).num_envs == 2
    with pytest.raises(PixelqError, match="did you mean"):
        make_envs("brekout", 1, 0, EnvConfig())


@pytest.mark.slow
def test_reseeding_follows_a_game_and_nothing_else():
    envs = make(env=EnvConfig(reseed_steps=100))
    plain = make(env=EnvConfig())
    result, ordinary = envs.reset(), plain.reset()
    rng = np.random.default_rng(0)
    count, seedings, parted = np.zeros(2, int), np.ones(2, int), np.zeros(2, bool)
    for _ in range(400):
        actions = random_actions(envs, rng)
        result, ordinary = step(envs, actions), step(plain, actions)
        count += 1
        due = result.reset & (count > 100)
        count[due] = 0
        seedings += due
        parted |= due
        state = envs.state()
        np.testing.assert_array_equal(state["lengths"], count)
        np.testing.assert_array_equal(state["seedings"], seedings)
        np.testing.assert_array_equal(result.obs[~parted], ordinary.obs[~parted])
    assert (seedings >= 2).all()
    assert (plain.state()["seedings"] == 1).all()
    assert resolve(TrainConfig()).env.reseed_steps == 5_000
    assert resolve(TrainConfig(env=EnvConfig(reseed_steps=7))).env.reseed_steps == 7


@pytest.mark.slow
@pytest.mark.parametrize(("game", "max_frames"), [("breakout", 108_000), ("qbert", 108_000), ("pong", 333)])
def test_a_restored_run_goes_on_bit_for_bit(game, max_frames):
    def fresh():
        return make(game, 3, 5, EnvConfig(sticky=0.25, max_frames_per_game=max_frames, reseed_steps=100))

    run, undisturbed = fresh(), fresh()
    assert_same(run.reset(), undisturbed.reset())
    rng = np.random.default_rng(4)
    spread = 0
    for segment in (1, 150, 220):
        for _ in range(segment):
            actions = random_actions(run, rng)
            last = step(run, actions)
            assert_same(last, step(undisturbed, actions))
            if rng.random() < 0.1:
                run.state()  # looking changes nothing
        state = run.state()
        spread = max(spread, int(np.ptp(state["lengths"])))
        run.close()
        run = fresh()
        assert_same(run.restore(state), last)
        for name, value in run.state().items():
            np.testing.assert_array_equal(value, state[name])
            assert value.dtype == state[name].dtype
    for _ in range(150):
        actions = random_actions(run, rng)
        assert_same(step(run, actions), step(undisturbed, actions))
    assert (run.state()["seedings"] >= 2).all()
    assert spread > 0 or game == "pong"  # whose games are all cut at the same step


@pytest.mark.parametrize("moment", ["over", "reset", "seeded"])
@pytest.mark.slow
def test_a_state_may_be_taken_at_any_moment_of_a_games_end(moment):
    def reached(envs, result):
        if moment == "over":
            return (result.terminated | result.truncated).any()
        seeded = envs.state()["lengths"] == 0
        return (result.reset & (seeded if moment == "seeded" else ~seeded)).any()

    envs, restored = (make(env=EnvConfig(reseed_steps=200)) for _ in range(2))
    last, rng = envs.reset(), np.random.default_rng(0)
    spread = 0
    for _ in range(2):  # the second time a log may not begin with the run
        last = step(envs, random_actions(envs, rng))
        while not reached(envs, last):
            last = step(envs, random_actions(envs, rng))
        state = envs.state()
        spread = max(spread, int(np.ptp(state["lengths"])))
        assert_same(restored.restore(state), last)  # also in games that were played before
        for _ in range(20):
            actions = random_actions(envs, rng)
            last = step(envs, actions)
            assert_same(step(restored, actions), last)
    assert spread > 0 or moment != "seeded"  # one game has just been seeded, the other has not


@pytest.mark.slow
def test_restoring_tells_its_progress():
    envs, restored = (make("pong", 2, env=EnvConfig()) for _ in range(2))
    envs.reset()
    for _ in range(150):
        step(envs, 2)
    seen = []
    restored.restore(envs.state(), lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 300)
    assert seen[-1] == (300, 300)
    assert seen == sorted(seen)


@pytest.mark.slow
def test_a_state_of_a_run_just_started_needs_no_step():
    envs, restored = (make("pong", 2) for _ in range(2))
    first = envs.reset()
    assert_same(restored.restore(envs.state()), first)


@pytest.mark.slow
def test_a_state_is_plain_arrays_of_a_byte_a_step():
    envs = make("pong", 2)
    envs.reset()
    for _ in range(1_100):  # beyond the first allocation of the log
        step(envs, 3)
    state = envs.state()
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in state.values())
    assert state["actions"].shape == (2_200,)
    assert (state["actions"] == 3).all()
    assert sum(value.nbytes for value in state.values()) < 2_400
    state["actions"][:] = 0  # a copy
    assert (envs.state()["actions"] == 3).all()


@pytest.mark.slow
def test_a_state_that_does_not_fit_is_refused():
    envs, three = make("breakout", 2), make("breakout", 3)
    envs.reset()
    for _ in range(20):
        step(envs, 1)
    state = envs.state()
    with pytest.raises(CheckpointError, match="the checkpoint holds 2 games: this run has 3"):
        three.restore(state)
    with pytest.raises(CheckpointError, match="play differently"):
        make("pong", 2).restore(state)
    with pytest.raises(CheckpointError, match="play differently"):
        make("breakout", 2, env=EnvConfig(sticky=0.25, noop_max=0)).restore(state)


@pytest.mark.slow
@pytest.mark.parametrize(("game", "sticky"), [("breakout", 0.0), ("breakout", 0.25), ("ms_pacman", 0.25)])
def test_a_colour_twin_stays_in_lock_step(game, sticky):
    """The same game at every frame and in colour: that is what videos are made of."""
    options = {
        "num_threads": 1,
        "reward_clipping": False,
        "repeat_action_probability": sticky,
        "max_num_frames_per_episode": 1_001,
    }
    twin = {"grayscale": False, "img_height": 210, "img_width": 160, "frameskip": 1, "stack_num": 1, "maxpool": False}
    policy = AtariVectorEnv(game, 1, **options)
    colour = AtariVectorEnv(game, 1, **options, **twin)
    info = policy.reset(seed=np.array([6]))[1]
    frame, twin_info = colour.reset(seed=np.array([6]))
    assert frame.shape == (1, 1, 210, 160, 3)
    rng = np.random.default_rng(0)
    over = False
    games = 0
    for _ in range(600):
        assert info["frame_number"] == twin_info["frame_number"]
        action = rng.integers(0, policy.single_action_space.n, 1)
        _, reward, terminated, truncated, info = policy.step(action)
        total, twin_over = 0, False
        for _ in range(1 if over else 4):
            _, part, twin_terminated, twin_truncated, twin_info = colour.step(action)
            total += part[0]
            twin_over = bool(twin_terminated[0] or twin_truncated[0])
            if twin_over:
                break
        over = bool(terminated[0] or truncated[0])
        assert (total, twin_over) == (reward[0], over)
        assert twin_info["lives"][0] == info["lives"][0]
        games += over
    assert games >= 2


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="a system without SCHED_BATCH")
def test_games_threads_push_nobody_aside():
    before = set(os.listdir("/proc/self/task"))
    envs = AtariEnvs("breakout", 2, 1, EnvConfig(), threads=2)
    try:
        fresh = set(os.listdir("/proc/self/task")) - before
        assert len(fresh) >= 2
        assert {os.sched_getscheduler(int(thread)) for thread in fresh} == {os.SCHED_BATCH}
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        if platform.machine() == "x86_64" and _linux() >= (6, 12):
            assert {_slice(int(thread)) for thread in fresh} == {100_000_000}
            assert _slice(0) < 100_000_000
    finally:
        envs.close()


def _linux():
    return tuple(int(number) for number in platform.release().split("-")[0].split(".")[:2])


def _slice(thread):
    """Nanoseconds of a thread's slice, by sched_getattr."""
    attributes = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(315, thread, attributes, 48, 0) == 0
    return struct.unpack("IIQiIQQQ", attributes.raw)[5]


def test_threads_that_may_not_be_told_to_wait_do_not(monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refused, raising=False)
    envs = AtariEnvs("breakout", 1, 1, EnvConfig(), threads=1)
    try:
        assert envs.reset().obs.shape == (1, 4, 84, 84)
    finally:
        envs.close()
