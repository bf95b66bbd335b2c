"""Games of Gymnasium's form: what the network sees, restoring them, and what is said of those that do not fit."""

import os
import signal
from contextlib import closing

import numpy as np
import pytest
from gymnasium.wrappers import (
    FrameStackObservation,
    GrayscaleObservation,
    MaxAndSkipObservation,
    ResizeObservation,
)

import own_games
from pixelq.config import EnvConfig, ObsShape
from pixelq.envs import make_envs
from pixelq.envs.interface import game_seed
from pixelq.errors import CheckpointError, GameError, PixelqError
from pixelq.games import file_word, game_kind, resolve_game
from pixelq.training.stopping import Stop

GAME = "own_games:make"


def opened(game=GAME, num_envs=2, seed=5, make_env=None, **settings):
    return closing(make_envs(game, num_envs, seed, EnvConfig(**settings), make_env=make_env))


def assert_same(one, other):
    for name, a, b in zip(one._fields, one, other, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype, name


def play(envs, steps):
    for _ in range(steps):
        envs.send(np.zeros(envs.num_envs, np.int64))
        envs.recv()


# what the network sees


@pytest.mark.slow
@pytest.mark.parametrize("skip", [1, 4])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        ("make", ObsShape()),
        ("square", ObsShape(4, 3, 96, 96)),
        ("square", ObsShape(3, 1, 96, 96)),
        ("wide_and_grey", ObsShape(4, 1, 60, 80)),
        ("make", ObsShape(4, 3, 60, 80)),
    ],
)
def test_pictures_are_those_of_gymnasiums_own_wrappers(make, shape, skip):
    twin = getattr(own_games, make)()
    if skip > 1:
        twin = MaxAndSkipObservation(twin, skip)
    twin = ResizeObservation(twin, (shape.height, shape.width))
    if shape.channels == 1 and twin.observation_space.shape[-1] == 3:
        twin = GrayscaleObservation(twin)
    twin = FrameStackObservation(twin, shape.stack, padding_type="zero")
    settings = {"stack": shape.stack, "height": shape.height, "width": shape.width, "colour": shape.channels == 3}
    with opened(f"own_games:{make}", 1, frame_skip=skip, rewards="raw", **settings) as envs:
        assert envs.spec.obs == shape
        chance, game = np.random.default_rng(0), 0
        result = envs.reset()
        obs, info = twin.reset(seed=game_seed(5, 0, game))
        for _ in range(150):
            expected = obs.reshape(shape.stack, shape.height, shape.width, shape.channels).transpose(0, 3, 1, 2)
            early = skip > 1 and (result.terminated[0] or result.truncated[0])  # Gymnasium's buffer is stale then
            if not early:
                np.testing.assert_array_equal(result.obs[0], expected.reshape(shape.obs))
            assert result.lives[0] == info["lives"]
            action = int(chance.integers(3))
            envs.send(np.array([action]))
            over = bool(result.terminated[0] or result.truncated[0])
            result = envs.recv()
            if over:
                game += 1
                obs, info = twin.reset(seed=game_seed(5, 0, game))
                assert result.reset[0]
                assert result.reward[0] == 0
                continue
            obs, reward, terminated, truncated, info = twin.step(action)
            assert not result.reset[0]
            assert (result.reward[0], result.terminated[0]) == (reward, terminated)
            assert result.truncated[0] == (truncated and not terminated)
        assert game > 1


def test_a_box_is_cut_out_and_an_entry_is_chosen():
    with opened("own_games:Symbols", 1, crop=(3, 5, 0, 20), height=40, width=40) as envs:
        assert "screen" in envs.spec.view
        twin = own_games.Dodge()
        screen = twin.reset(seed=game_seed(5, 0, 0))[0][3:-5, :-20]
        np.testing.assert_array_equal(
            envs.reset().obs[0, -1], np.sum(screen * np.array([0.2125, 0.7154, 0.0721]), axis=-1).astype(np.uint8)
        )
        np.testing.assert_array_equal(envs.show(), own_games.Symbols().reset(seed=game_seed(5, 0, 0))[0]["screen"])


@pytest.mark.parametrize("game", ["own_games:Symbols", "own_games:make"])
def test_rendered_pictures_can_be_asked_for(game):
    with opened(game, 1, observation="render") as envs:
        assert "render()" in envs.spec.view


def test_actions_that_begin_elsewhere_and_their_meanings():
    with opened("own_games:shifted_actions", 1) as envs, opened(GAME, 1) as twin:
        assert envs.action_meanings == ("NOOP", "LEFT", "RIGHT")
        assert_same(envs.reset(), twin.reset())
        for action in (0, 1, 2, 1):
            for games in (envs, twin):
                games.send(np.array([action]))
            assert_same(envs.recv(), twin.recv())


def test_games_are_cut_by_steps_and_a_cut_game_is_no_ended_one():
    with opened(GAME, 1, max_steps=5) as envs:
        envs.reset()
        for _ in range(5):
            envs.send(np.array([0]))
            result = envs.recv()
        assert result.truncated[0]
        assert not result.terminated[0]


# restoring


@pytest.mark.parametrize("vector", ["one-thread", pytest.param("processes", marks=pytest.mark.slow)])
def test_restored_games_go_on_bit_for_bit(vector):
    chance = np.random.default_rng(3)
    with opened(num_envs=3, vector=vector) as envs:
        result = envs.reset()
        for length in (0, 1, 37, 160):  # among them a moment at which a game is over
            for _ in range(length):
                envs.send(chance.integers(0, 3, 3))
                result = envs.recv()
            while length == 37 and not (result.terminated | result.truncated).any():
                envs.send(chance.integers(0, 3, 3))
                result = envs.recv()
            with opened(num_envs=3) as twin:
                assert_same(twin.restore(envs.state()), result)
                for actions in chance.integers(0, 3, (60, 3)):
                    for games in (envs, twin):
                        games.send(actions)
                    result = envs.recv()
                    assert_same(twin.recv(), result)
                for name, value in envs.state().items():
                    np.testing.assert_array_equal(twin.state()[name], value)


def test_restarted_games_are_new_ones():
    with opened() as envs, opened() as twin:
        first = envs.reset()
        result = twin.restart(envs.state())
        assert result.reset.all()
        assert not np.array_equal(first.obs, result.obs)
        with pytest.raises(CheckpointError, match="holds 2 games: this run has 1"), opened(num_envs=1) as other:
            other.restore(envs.state())


def test_games_that_play_differently_later_are_found_at_the_resume():
    with opened() as envs:
        envs.reset()
        state = envs.state() | {"checksum": np.array(1)}
        with opened() as twin, pytest.raises(CheckpointError, match="--fresh-games continues with new games"):
            twin.restore(state)


@pytest.mark.parametrize(("game", "same"), [("make", True), ("ByChance", False), ("Remembers", False)])
def test_games_that_do_not_play_the_same_again_are_found(game, same):
    with opened(f"own_games:{game}", 1) as envs:
        assert envs.spec.deterministic is same


def test_slow_games_get_processes_and_quick_ones_a_thread(monkeypatch):
    monkeypatch.setattr("pixelq.envs.gymnasium.cores", lambda: 2)
    with opened("own_games:Slow") as envs:
        assert "2 processes" in envs.spec.view
    with opened("own_games:Slow", vector="one-thread") as envs:
        assert "one thread" in envs.spec.view


# names


def test_names():
    assert resolve_game("CartPole-v1").kind == "gymnasium"
    assert resolve_game(GAME).name == GAME
    assert game_kind("breakout") == game_kind(resolve_game("ALE/Pong-v5").name) == "atari"
    assert file_word("minigrid:MiniGrid-Empty-5x5-v0") == "minigrid-MiniGrid-Empty-5x5-v0"


WRONG = {
    "CartPol-v1": 'did you mean "CartPole-v1"',
    "MiniGrid-Empty-9x9-v7": 'it is "minigrid:MiniGrid-Empty-9x9-v7", of the package minigrid',
    "nowhere.at.all:make": 'no module "nowhere"; is it in this folder',
    "vizdoom.gymnasium_wrapper:VizdoomNone-v0": "pip install vizdoom|knows no|unknown game",
    "own_games:mak": 'own_games has no "mak" \\(did you mean "make"',
    "own_games:not_callable": "is no function that returns a gymnasium.Env",
    "own_games:Nothing-v0": 'unknown game "own_games:Nothing-v0": the module registers no "Nothing-v0"',
    "own_games:not_an_env": "gives SimpleNamespace: it must return a gymnasium.Env",
    "own_games:NeedsMore": "cannot be started: DependencyNotInstalled: pygame is not installed",
    "own_games:raises": "RuntimeError: the disk with the levels is missing \\(own_games.py, line",
    "own_games:continuous": "Q-learning needs Discrete ones; docs/your-own-game.md shows a wrapper",
    "own_games:several_discrete": "MultiDiscrete",
    "own_games:many_actions": "has 300 actions: at most 256",
    "own_games:no_pictures": "shows no picture: its observations are Box",
    "own_games:rendered_for_humans": 'make it with render_mode="rgb_array"',
    "own_games:two_pictures": "choose --env.observation left or right",
    "own_games:OldStart": "reset gives a ndarray: Gymnasium's form is \\(observation, info\\)$",
    "own_games:needs_a_level": "missing 1 required positional argument: 'level'$",
    "own_games.py:make": 'a module is named without ".py", as in "own_games:make"',
    "own_games:": "must be module:function or module:Id-v0",
    ":make": "must be module:function or module:Id-v0",
    "make_env:mine": "comes from a function",
}


@pytest.mark.parametrize("game", WRONG)
def test_what_does_not_fit_is_said_in_a_line(game):
    with pytest.raises(PixelqError, match=WRONG[game]) as caught, opened(game):
        pass
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("game", "settings", "said"),
    [
        (GAME, {"crop": (30, 30, 0, 0)}, "leaves nothing of a picture of 48×60"),
        ("own_games:wide_and_grey", {"colour": True}, "pictures are grey"),
        (GAME, {"observation": "camera"}, "own_games:make has observation, and render"),
        ("own_games:no_pictures", {"observation": "render"}, "cannot be rendered"),
        ("own_games:GivesNan", {}, "reward nan"),
        ("own_games:OldSteps", {}, r"step gives 4 values: .* \(observation, reward, terminated, truncated, info\)$"),
    ],
)
def test_settings_that_do_not_fit_are_said_in_a_line(game, settings, said):
    with pytest.raises(PixelqError, match=said), opened(game, **settings):
        pass


@pytest.mark.parametrize("vector", ["one-thread", "processes"])
def test_a_game_that_fails_says_what_and_where(vector):
    own_games.Fails.played = 0
    with opened("own_games:Fails", vector=vector) as envs:
        envs.reset()
        with pytest.raises(GameError, match=r"failed in game \d: KeyError: 'level 7' \(own_games.py, line") as caught:
            play(envs, 300)
        assert caught.value.exit_status == 1


def test_a_games_process_leaves_signals_to_the_run(capfd):
    with Stop().heeded(), opened(GAME, vector="processes") as envs:
        envs.reset()
        for number in filter(
            None, (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"))
        ):
            os.kill(envs._vector.processes[1].pid, number)
        play(envs, 5)
    with Stop().heeded(), opened(GAME, vector="processes") as envs:
        pass  # closed before it began: the run could not be started
    assert not any(process.is_alive() for process in envs._vector.processes)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("by", ["itself", "a signal"])
def test_a_process_that_ends_is_named(by, monkeypatch):
    own_games.Dies.played = 0
    if by == "itself":
        monkeypatch.setenv("DIES", "1")
    said = "game 1 .* was killed by signal 9" if by == "a signal" else "ended with status 3"
    with opened("own_games:Dies", vector="processes") as envs:
        envs.reset()
        if by == "a signal":
            os.kill(envs._vector.processes[1].pid, signal.SIGKILL)
        with pytest.raises(GameError, match=said):
            play(envs, 300)


def test_a_function_is_no_name():
    with opened("make_env:make", make_env=own_games.make) as envs:
        assert envs.reset().obs.shape == (2, 4, 84, 84)
