"""Breakout as the Keras example sees it: what its stack of wrappers does, in one class over gymnasium and ale-py."""

from collections import deque

import ale_py
import cv2
import gymnasium
import numpy as np
from numpy.typing import NDArray

gymnasium.register_envs(ale_py)

SKIP = 4  # emulator frames a step
NOOP, FIRE, RIGHT = 0, 1, 2


class NotebookGame:
    """A game whose episodes are lives, whose rewards are signs, and whose observations are float32 [84, 84, 4] in 0…1.

    A step repeats its action for 4 frames and shows the maximum of the last two, in grey, resized by area. A game
    begins with 1 to 30 no-op frames; every episode, also one after a lost life, begins with FIRE and another action.
    Observations are stacks of the last four; an episode's first holds its plane four times.

    Args:
        seed: of the game and of the no-ops.
    """

    def __init__(self, seed: int) -> None:
        # what BreakoutNoFrameskip-v4 stands for
        settings = {"frameskip": 1, "repeat_action_probability": 0.0}
        self._env = gymnasium.make("ALE/Breakout-v5", disable_env_checker=True, **settings)
        self._seed: int | None = seed  # until the first reset
        self._rng = np.random.default_rng(seed)
        self._planes: deque[NDArray[np.float32]] = deque(maxlen=4)
        self._lives = 0
        self._game_over = True

    def reset(self) -> NDArray[np.float32]:
        """Begin an episode: another game, or the next life of this one."""
        plane = self._begin()
        for action in (FIRE, RIGHT):
            plane, _, done = self._act(action)
            if done:
                plane = self._begin()
        self._planes.extend([plane] * 4)
        return self._stack()

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool]:
        """Do a step.

        Returns:
            The observation, the sign of the reward, whether the episode is over.
        """
        plane, reward, done = self._act(action)
        self._planes.append(plane)
        return self._stack(), float(np.sign(reward)), done

    def _begin(self) -> NDArray[np.float32]:
        return self._new_game() if self._game_over else self._act(NOOP)[0]

    def _new_game(self) -> NDArray[np.float32]:
        frame, _ = self._env.reset(seed=self._seed)
        self._seed = None
        for _ in range(self._rng.integers(1, 31)):
            frame, _, terminated, truncated, _ = self._env.step(NOOP)
            if terminated or truncated:
                frame, _ = self._env.reset()
        self._game_over = False
        self._lives = self._env.unwrapped.ale.lives()
        return _plane(frame)

    def _act(self, action: int) -> tuple[NDArray[np.float32], float, bool]:
        frames: deque[NDArray[np.uint8]] = deque(maxlen=2)
        total = 0.0
        for _ in range(SKIP):
            frame, reward, terminated, truncated, _ = self._env.step(action)
            frames.append(frame)
            total += float(reward)
            self._game_over = terminated or truncated
            if self._game_over:
                break
        lives = self._env.unwrapped.ale.lives()
        lost = 0 < lives < self._lives
        self._lives = lives
        return _plane(np.max(frames, axis=0)), total, self._game_over or lost

    def _stack(self) -> NDArray[np.float32]:
        return np.concatenate(self._planes, axis=-1)


def _plane(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[210, 160, 3] to [84, 84, 1] in 0…1."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)
    return (np.asarray(small, np.float32) / 255.0)[:, :, None]
