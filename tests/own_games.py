"""Games of Gymnasium's form for tests: one that fits, and others with one fault each."""

import os
import time
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Dodge(gym.Env):
    """A dot falls down one of five columns; the player, at the bottom, must not stand there. 12 dots, 3 lives."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, rows=48, columns=60, channels=3, lives=3, render_mode="rgb_array"):
        self.observation_space = spaces.Box(0, 255, (rows, columns, channels), np.uint8)
        self.action_space = spaces.Discrete(3)
        self.render_mode = render_mode
        self.lives = lives

    def get_action_meanings(self):
        return ["NOOP", "LEFT", "RIGHT"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.left, self.dots, self.row = 2, self.lives, 0, 0
        self.column = int(self.np_random.integers(5))
        return self._obs(), self._info()

    def step(self, action):
        self.at = int(np.clip(self.at + (0, -1, 1)[action], 0, 4))
        self.row += 1
        reward = 0.0
        if self.row == 4:
            hit = self.at == self.column
            reward = -1.0 if hit else 2.0
            self.left -= hit
            self.dots, self.row, self.column = self.dots + 1, 0, int(self.np_random.integers(5))
        return self._obs(), reward, self.left == 0, self.dots == 12, self._info()

    def render(self):
        return np.repeat(self._obs(), 3, axis=2)[:, :, :3]

    def _obs(self):
        rows, columns, channels = self.observation_space.shape
        obs = np.full((rows, columns, channels), 20, np.uint8)
        height, width = rows // 5, columns // 5
        obs[-height:, self.at * width : (self.at + 1) * width, 0] = 255
        obs[self.row * height : (self.row + 1) * height, self.column * width : (self.column + 1) * width, -1] = 200
        return obs

    def _info(self):
        return {"lives": self.left}


def make():
    return Dodge()


def square():
    return Dodge(96, 96)


def wide_and_grey():
    return Dodge(60, 80, channels=1)


def no_pictures():
    env = Dodge(render_mode=None)
    env.observation_space = spaces.Box(-1, 1, (4,))
    env.metadata = {"render_modes": []}
    return env


def rendered_for_humans():
    env = no_pictures()
    env.metadata = Dodge.metadata
    return env


class Unhurried(Dodge):
    """A step takes 5 ms, in which the processor is free."""

    def step(self, action):
        time.sleep(0.005)
        return super().step(action)


def unhurried():
    return Unhurried()


class Symbols(Dodge):
    """Its observations are a dictionary; only `screen` is a picture."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.board = self.observation_space
        self.observation_space = spaces.Dict(
            {"screen": self.board, "tiny": spaces.Box(0, 255, (7, 7, 3), np.uint8), "fuel": spaces.Box(0, 1, (1,))}
        )

    def _obs(self):
        whole, self.observation_space = self.observation_space, self.board
        screen = super()._obs()
        self.observation_space = whole
        return {"screen": screen, "tiny": screen[:7, :7], "fuel": np.ones(1, np.float32)}

    def render(self):
        return self._obs()["screen"]


def two_pictures():
    env = Symbols()
    env.observation_space = spaces.Dict({"left": env.board, "right": env.board})
    return env


def continuous():
    env = Dodge()
    env.action_space = spaces.Box(-1, 1, (2,))
    return env


def several_discrete():
    env = Dodge()
    env.action_space = spaces.MultiDiscrete([3, 2])
    return env


def many_actions():
    env = Dodge()
    env.action_space = spaces.Discrete(300)
    return env


def shifted_actions():
    env = Dodge()
    env.action_space = spaces.Discrete(3, start=5)
    step = env.step
    env.step = lambda action: step(action - 5)
    return env


def not_an_env():
    return SimpleNamespace(step=None)


def raises():
    raise RuntimeError("the disk with\nthe levels is missing")


class NeedsMore(Dodge):
    """What draws its pictures is not installed."""

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(-1, 1, (4,))

    def _obs(self):
        return np.zeros(4, np.float32)

    def render(self):
        raise gym.error.DependencyNotInstalled("pygame is not installed")


class Fails(Dodge):
    """Something goes wrong at the 50th step of all games."""

    played = 0

    def step(self, action):
        Fails.played += 1
        if Fails.played == 200:
            raise KeyError("level 7")
        return super().step(action)


class GivesNan(Dodge):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, reward * np.nan, *rest


class Dies(Dodge):
    """Its process ends at the 60th step."""

    played = 0

    def step(self, action):
        Dies.played += 1
        if Dies.played > 200 and os.environ.get("DIES"):
            os._exit(3)
        return super().step(action)


class Slow(Dodge):
    def step(self, action):
        time.sleep(0.004)
        return super().step(action)


class ByChance(Dodge):
    """Heeds no seed."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=int.from_bytes(os.urandom(4), "little"))


class Remembers(Dodge):
    """Something is left over from the game before."""

    games = 0

    def reset(self, *, seed=None, options=None):
        self.games += 1
        return super().reset(seed=seed + self.games)


not_callable = 7


class OldSteps(Dodge):
    """A game of the form before Gymnasium: `done` in place of two flags."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class OldStart(Dodge):
    """A game of that form whose `reset` gives the observation alone."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


def needs_a_level(level):
    return Dodge(level)
