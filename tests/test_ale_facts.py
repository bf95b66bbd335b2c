"""What pixelq takes for granted about ale-py, each a fact of docs/design.md; a new ale-py must pass these."""

import inspect
import os
import sys

import ale_py
import gymnasium
import numpy as np
import pytest
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

gymnasium.register_envs(ale_py)


def make(game="breakout", num_envs=1, **options):
    return AtariVectorEnv(game, num_envs, **{"num_threads": 1, "reward_clipping": False} | options)


def play(vector, steps, seed=0):
    """`steps` results of random actions."""
    rng = np.random.default_rng(seed)
    count = vector.single_action_space.n
    return [vector.step(rng.integers(0, count, vector.num_envs)) for _ in range(steps)]


def assert_same(left, right):
    for a, b in zip(left[:4], right[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(left[4]["lives"], right[4]["lives"])


@pytest.fixture(scope="module")
def breakout():
    """Two games of Breakout with everything else at ale-py's defaults; each test seeds them itself."""
    return make(num_envs=2)


@pytest.mark.slow
@pytest.mark.parametrize(("game", "sticky"), [("breakout", 0.0), ("qbert", 0.25)])
def test_frames_and_rewards_equal_gymnasiums_preprocessing(game, sticky):
    seed = 201  # the emulator's seed that gymnasium derives from it must not be negative, see below
    emulator_seed = np.random.SeedSequence(seed).generate_state(2)[1].astype(np.int32)
    assert emulator_seed >= 0
    name = "ALE/" + game.title().replace("_", "") + "-v5"
    single = gymnasium.make(name, frameskip=1, repeat_action_probability=sticky)
    single = AtariPreprocessing(single, noop_max=0, frame_skip=4, screen_size=84)
    single = FrameStackObservation(single, 4, padding_type="zero")
    vector = make(game, noop_max=0, use_fire_reset=False, repeat_action_probability=sticky)
    expected, _ = single.reset(seed=seed)
    obs, _ = vector.reset(seed=np.array([emulator_seed]))
    np.testing.assert_array_equal(obs[0], expected)
    rng = np.random.default_rng(1)
    over, games = False, 0
    for _ in range(2_000):
        action = int(rng.integers(single.action_space.n))
        obs, reward, terminated, truncated, info = vector.step(np.array([action]))
        if over:
            expected, expected_info = single.reset()
            wanted = (0, False, False)
        else:
            expected, *wanted, expected_info = single.step(action)
        np.testing.assert_array_equal(obs[0], expected)
        assert (reward[0], terminated[0], truncated[0]) == tuple(wanted)
        assert info["lives"][0] == expected_info["lives"]
        over = wanted[1] or wanted[2]
        games += over
    assert games >= 2  # the frames of final and first steps were among them


def test_rewards_are_clipped_unless_told_otherwise():
    assert inspect.signature(AtariVectorEnv).parameters["reward_clipping"].default is True
    clipped, raw = (make("ms_pacman", reward_clipping=on) for on in (True, False))
    for vector in (clipped, raw):
        vector.reset(seed=np.array([3]))
    rewards = [(a[1][0], b[1][0]) for a, b in zip(play(clipped, 100), play(raw, 100), strict=True)]
    assert max(b for _, b in rewards) == 10
    assert all(a == np.sign(b) for a, b in rewards)


def test_episodic_life_restarts_the_game_at_a_lost_life():
    vector = make(episodic_life=True)
    vector.reset(seed=np.array([0]))
    terminated = [False]
    while not terminated[0]:
        _, _, terminated, _, info = vector.step(np.array([0]))
    assert info["lives"][0] == 4  # a life is lost, not the game
    obs, *_, info = vector.step(np.array([0]))
    assert info["lives"][0] == 5
    assert not obs[0, :3].any()


@pytest.mark.slow
def test_the_step_after_a_games_end_ignores_its_action_and_starts_the_next(breakout):
    outcomes = []
    for ignored in (0, 3):
        breakout.reset(seed=np.array([1, 1]))
        rng = np.random.default_rng(0)
        while True:
            obs, _, terminated, _, info = breakout.step(np.repeat(rng.integers(0, 4), 2))
            if terminated[0]:
                break
        assert info["lives"][0] == 0
        assert obs[0].any(axis=(1, 2)).all()  # the final observation is a whole stack of the old game
        outcomes.append(breakout.step(np.array([ignored, ignored])))
    for obs, reward, terminated, truncated, info in outcomes:
        assert not reward.any()
        assert not terminated.any()
        assert not truncated.any()
        assert (info["lives"] == 5).all()
        assert not obs[:, :3].any()
    assert_same(*outcomes)


def test_stacks_start_with_zero_planes_and_the_newest_is_last(breakout):
    obs, _ = breakout.reset(seed=np.array([1, 2]))
    assert obs.shape == (2, 4, 84, 84)
    assert obs.dtype == np.uint8
    assert not obs[:, :3].any()
    assert obs[:, 3].any()
    for newer, *_ in play(breakout, 6):
        np.testing.assert_array_equal(newer[:, :3], obs[:, 1:])
        obs = newer


def test_every_step_gives_fresh_arrays(breakout):
    obs, _ = breakout.reset(seed=np.array([1, 2]))
    results = play(breakout, 10)
    copies = [result[0].copy() for result in results]
    play(breakout, 10)
    arrays = [obs, *(result[0] for result in results)]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    for result, copy in zip(results, copies, strict=True):
        np.testing.assert_array_equal(result[0], copy)


def test_the_cap_counts_emulator_frames_from_the_first_step_on():
    vector = make("pong", max_num_frames_per_episode=100)
    for seed in range(3):
        _, info = vector.reset(seed=np.array([seed]))
        results = play(vector, 25)
        assert [bool(result[3][0]) for result in results] == [False] * 24 + [True]
        assert results[-1][4]["episode_frame_number"] == info["episode_frame_number"] + 100


def test_actions_are_not_sticky_unless_told_otherwise():
    assert inspect.signature(AtariVectorEnv).parameters["repeat_action_probability"].default == 0.0
    assert gymnasium.spec("ALE/Breakout-v5").kwargs["repeat_action_probability"] == 0.25


def test_there_is_no_vector_save_state(breakout):
    assert [name for name in dir(breakout.ale) if "state" in name.lower() and name[0] != "_"] == []


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.slow
def test_seeding_in_mid_run_equals_a_fresh_environment(partial):
    options = {"num_envs": 2, "repeat_action_probability": 0.25}
    used, fresh = make(**options), make(**options)
    used.reset(seed=np.array([1, 2]))
    play(used, 150, seed=9)
    reset = {"reset_mask": np.array([False, True])} if partial else None
    obs, info = used.reset(seed=np.array([8] if partial else [7, 8]), options=reset)
    expected, expected_info = fresh.reset(seed=np.array([7, 8]))
    np.testing.assert_array_equal(obs[1], expected[1])
    assert info["frame_number"][1] == expected_info["frame_number"][1]
    for ours, theirs in zip(play(used, 200), play(fresh, 200), strict=True):
        for a, b in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.slow
def test_a_partial_reset_leaves_the_other_games_alone(breakout):
    seeds = np.array([1, 2])
    breakout.reset(seed=seeds)
    expected = play(breakout, 60)
    breakout.reset(seed=seeds)
    rng = np.random.default_rng(0)
    for step, wanted in enumerate(expected):
        result = breakout.step(rng.integers(0, 4, 2))
        np.testing.assert_array_equal(result[0][0], wanted[0][0])
        if step % 20 == 10:
            obs, info = breakout.reset(seed=np.array([5]), options={"reset_mask": np.array([False, True])})
            np.testing.assert_array_equal(obs[0], wanted[0][0])
            assert info["lives"][0] == wanted[4]["lives"][0]


def test_a_seeded_reset_at_a_games_end_takes_the_place_of_the_ignored_step():
    vector = make("pong", max_num_frames_per_episode=80)
    first, _ = vector.reset(seed=np.array([4]))
    expected = play(vector, 10)
    while not play(vector, 1)[0][3][0]:
        pass
    again, _ = vector.reset(seed=np.array([4]), options={"reset_mask": np.array([True])})
    np.testing.assert_array_equal(again, first)
    for ours, wanted in zip(play(vector, 10), expected, strict=True):
        assert_same(ours, wanted)


def test_fire_is_pressed_for_one_frame_at_a_games_start_only():
    vector = make(noop_max=0)
    _, info = vector.reset(seed=np.array([0]))
    assert info["frame_number"][0] == 1
    lives, moving = 5, []
    for _ in range(200):
        obs, *_, info = vector.step(np.array([0]))
        moving.append((obs[0, 2] != obs[0, 3]).any())
        lives = info["lives"][0]
    assert any(moving[:20])  # the ball flies without an action
    assert lives == 4
    assert not any(moving[-100:])  # and after a lost life the next ball is not served


def test_games_without_fire_start_without_it():
    vector = make("freeway", noop_max=0)
    _, info = vector.reset(seed=np.array([0]))
    assert info["frame_number"][0] == 0


def test_seeds_are_int32_and_a_negative_one_seeds_nothing(breakout):
    first, _ = breakout.reset(seed=np.array([2**31 - 1, 0]))
    again, _ = breakout.reset(seed=np.array([2**31 - 1, 0]))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(TypeError):
        breakout.reset(seed=np.array([2**31, 0]))
    starts = {int(breakout.reset(seed=np.array([-1, -1]))[1]["frame_number"][0]) for _ in range(5)}
    assert len(starts) > 1


@pytest.mark.slow
def test_no_ops_at_a_games_start_depend_on_the_seed_and_are_at_most_noop_max():
    vector = make(noop_max=5, use_fire_reset=False)
    frames = [int(vector.reset(seed=np.array([seed]))[1]["frame_number"][0]) for seed in range(8)]
    assert max(frames) <= 5
    assert len(set(frames)) > 2


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize(("num_envs", "num_threads"), [(1, 0), (3, 0), (3, 2)])
def test_there_is_a_thread_for_each_core_but_no_more_than_games(num_envs, num_threads):
    before = len(os.listdir("/proc/self/task"))
    vector = make("pong", num_envs, num_threads=num_threads)
    started = len(os.listdir("/proc/self/task")) - before
    assert started == (num_threads or min(num_envs, len(os.sched_getaffinity(0)), os.cpu_count()))
    del vector


def test_roms_come_inside_the_wheel():
    for game in ("breakout", "pong", "ms_pacman"):
        assert str(roms.get_rom_path(game)).startswith(os.path.dirname(ale_py.__file__))


@pytest.mark.slow
def test_breakout_stops_serving_after_65535_frames():
    """The ball vanishes and FIRE brings none, no life is lost, and the paddle still moves: such a game never ends."""
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path("breakout"))

    def after(action, frames):
        """Paddle's column, ball's row (0: there is none) and lives after holding the stick so long."""
        for _ in range(frames):
            ale.act(action)
        return int(ale.getRAM()[72]), int(ale.getRAM()[101]), ale.lives()

    after(ale_py.Action.NOOP, 65_500)
    assert after(ale_py.Action.FIRE, 10)[1] > 0
    assert after(ale_py.Action.NOOP, 40)[1:] == (0, 5)
    assert ale.getFrameNumber() == 65_550
    for _ in range(5):
        assert after(ale_py.Action.FIRE, 10)[1] == 0
        assert after(ale_py.Action.LEFT, 60)[0] < after(ale_py.Action.RIGHT, 60)[0]
    assert ale.lives() == 5
    assert not ale.game_over()
