"""Games of packages that are not ours: what the network sees of them, and that they are restored bit for bit."""

import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from pixelq.cli.main import main
from pixelq.config import EnvConfig
from pixelq.envs import make_envs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_in_a_folder_of_its_own")]
DOOR = "minigrid:MiniGrid-DoorKey-5x5-v0"
DOOM = "vizdoom.gymnasium_wrapper:VizdoomBasic-v1"
# game, package, settings, actions, planes × height × width, the entry that is the picture
GAMES = [
    ("CartPole-v1", "pygame", {"observation": "render", "stack": 2}, 2, (2, 84, 84), "render()"),
    ("minigrid:MiniGrid-Empty-5x5-v0", "minigrid", {}, 7, (4, 84, 84), "render()"),
    (DOOR, "minigrid", {"colour": True, "height": 56, "width": 56}, 7, (12, 56, 56), "render()"),
    ("CarRacing-v3", "Box2D", {"frame_skip": 4, "crop": (0, 12, 0, 0)}, 5, (4, 84, 84), "observation"),
    (DOOM, "vizdoom", {"frame_skip": 4}, 4, (4, 84, 84), "screen"),
]


@pytest.fixture
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """ViZDoom leaves a file in the working folder."""
    monkeypatch.chdir(tmp_path)


def opened(game, package, num_envs, **settings):
    pytest.importorskip(package, reason=f"needs {package}: docs/your-own-game.md")
    return closing(make_envs(game, num_envs, 5, EnvConfig(vector="one-thread", **settings)))


@pytest.mark.parametrize(("game", "package", "settings", "actions", "shape", "picture"), GAMES)
def test_what_the_network_sees(game, package, settings, actions, shape, picture):
    with opened(game, package, 1, **settings) as envs:
        assert len(envs.spec.action_meanings) == actions
        assert envs.spec.obs.obs == shape
        assert picture in envs.spec.view
        obs = envs.reset().obs
        assert obs.shape == (1, *shape)
        assert obs.std() > 1  # something is to be seen


@pytest.mark.parametrize(("game", "package", "settings"), [case[:3] for case in GAMES])
def test_restored_games_go_on_bit_for_bit(game, package, settings):
    chance = np.random.default_rng(3)
    with opened(game, package, 2, **settings) as envs:
        assert envs.spec.deterministic
        envs.reset()
        for actions in chance.integers(0, len(envs.spec.action_meanings), (90, 2)):
            envs.send(actions)
            result = envs.recv()
        with opened(game, package, 2, **settings) as twin:
            for games in (twin.restore(envs.state()), result):
                np.testing.assert_array_equal(games.obs, result.obs)
            for actions in chance.integers(0, len(envs.spec.action_meanings), (20, 2)):
                for games in (envs, twin):
                    games.send(actions)
                for one, other in zip(envs.recv(), twin.recv(), strict=True):
                    np.testing.assert_array_equal(one, other)


def test_a_game_that_draws_with_sdl_is_silent_without_a_display(tmp_path):
    pytest.importorskip("pygame", reason="needs pygame: docs/your-own-game.md")
    without = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    code = "from pixelq.envs.seat import open_env; env = open_env('CartPole-v1'); env.reset(); env.render()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=without, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_verbs_on_a_game_of_another_package(tmp_path):
    pytest.importorskip("minigrid", reason="needs minigrid: docs/your-own-game.md")
    sizes = "--envs 2 --env.vector one-thread --threads 1 --device cpu --network.channels 8 8 8 --network.hidden 16"
    sizes += " --replay.capacity 1000 --replay.learn-start 100 --total-steps 200 --progress none"
    run = str(tmp_path / "run")
    assert main(["train", "fast", "--game", DOOR, *sizes.split(), "--video-every-episodes", "0", "--run", run]) == 0
    assert main(["eval", run, "--episodes", "2", "--device", "cpu"]) == 0
    assert main(["record", run, "--out", str(tmp_path / "game.mp4"), "--device", "cpu"]) == 0
