"""Atari games in ale-py's C++ threads, with a log of actions from which they can be restored bit for bit."""

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from pixelq.config import FRAME_SKIP, EnvConfig
from pixelq.envs.background import threads_that_wait
from pixelq.envs.interface import RESEED_STEPS, EnvSpec, StepResult, check_actions, game_seed
from pixelq.errors import CheckpointError

__all__ = ["AtariEnvs"]


class AtariEnvs:
    """N games of one ROM. A game is its seed and the actions since, so those two are its state.

    So that logs do not grow without end, a game with a log longer than `reseed_steps` gets a new seed, and its log
    starts again, right after the step that began its next game. Nothing else ever seeds.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        seed: int,
        env: EnvConfig,
        threads: int = 0,
    ) -> None:
        frame_skip = env.frame_skip or FRAME_SKIP
        with threads_that_wait():
            self._vector = AtariVectorEnv(
                game,
                num_envs,
                num_threads=threads,
                max_num_frames_per_episode=env.max_frames_per_game,
                repeat_action_probability=env.sticky or 0.0,
                full_action_space=env.full_action_space,
                frameskip=frame_skip,
                noop_max=env.noop_max,
                use_fire_reset=env.fire_at_start,
                img_height=env.height,
                img_width=env.width,
                stack_num=env.stack,
                grayscale=not env.colour,
                reward_clipping=False,  # keep the score
            )
        self.num_envs = num_envs
        meanings = tuple(action.name for action in self._vector.ale.get_action_set())
        self.spec = EnvSpec(meanings, env.obs_shape, frame_skip, has_lives=True, steps_per_second=60 / frame_skip)
        self._seed = seed
        self._reseed_steps = env.reseed_steps or RESEED_STEPS["cpu"]
        self._seedings = np.zeros(num_envs, np.int64)  # how often each game has been seeded
        self._seeds = np.zeros(num_envs, np.int64)  # the emulator's seed now in force
        self._log = np.zeros((num_envs, 1_024), np.uint8)  # actions since that seeding
        self._lengths = np.zeros(num_envs, np.int64)  # how many they are
        self._last: StepResult | None = None
        self._in_flight = False  # between send and recv

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """One for each action."""
        return self.spec.action_meanings

    def reset(self) -> StepResult:
        """Seed all games from the seed given at construction and start them."""
        self._seedings[:] = 0
        return self._seed_games(np.ones(self.num_envs, np.bool_))

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start one step of every game, and come back at once."""
        self._current()
        check_actions(actions, self.num_envs, len(self.action_meanings))  # ale-py hangs on a wrong one
        self._vector.send(actions)
        self._in_flight = True
        if self._lengths.max() == self._log.shape[1]:
            self._log = np.concatenate([self._log, np.zeros_like(self._log)], axis=1)
        self._log[np.arange(self.num_envs), self._lengths] = actions
        self._lengths += 1

    def recv(self) -> StepResult:
        """Wait for the step that `send` started."""
        if not self._in_flight:
            raise RuntimeError("recv without send")
        self._in_flight = False
        result = self._recv()
        due = result.reset & (self._lengths > self._reseed_steps)
        return self._seed_games(due) if due.any() else result

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Seeds, how often each game was seeded, and the actions since: one byte a step and game."""
        last = self._current()
        logs = [self._log[i, :length] for i, length in enumerate(self._lengths)]
        return {
            "seeds": self._seeds.copy(),
            "seedings": self._seedings.copy(),
            "lengths": self._lengths.copy(),
            "actions": np.concatenate(logs),
            "checksum": np.array(_checksum(last), np.int64),
        }

    def restore(
        self, state: Mapping[str, NDArray[np.generic]], progress: Callable[[int, int], None] | None = None
    ) -> StepResult:
        """Replay the logs; games with shorter ones idle first, so that all arrive together."""
        lengths = self._checked(state)["lengths"].astype(np.int64)
        ticks = int(lengths.max())
        self._load_logs(lengths, state["actions"].astype(np.uint8))
        self._seeds = state["seeds"].astype(np.int64)
        self._seedings = state["seedings"].astype(np.int64)
        starts = ticks - lengths
        rows = np.arange(self.num_envs)
        self._reset_to_seeds(np.ones(self.num_envs, np.bool_))
        for tick in range(ticks):
            if progress is not None and tick % 20 == 0:
                progress(tick * self.num_envs, ticks * self.num_envs)
            if tick and (starts == tick).any():
                self._reset_to_seeds(starts == tick)
            actions = np.where(tick >= starts, self._log[rows, np.maximum(tick - starts, 0)], 0)
            self._vector.send(actions.astype(np.int64))
            self._recv()
        if ticks and (starts == ticks).any():
            self._reset_to_seeds(starts == ticks)
        if progress is not None:
            progress(ticks * self.num_envs, ticks * self.num_envs)
        last = self._current()
        if _checksum(last) != int(state["checksum"]):
            raise CheckpointError("the checkpoint's games play differently here: use the ale-py that wrote it")
        return last

    def restart(self, state: Mapping[str, NDArray[np.generic]]) -> StepResult:
        """Start every game from the seed that it would have been given next."""
        self._seedings = self._checked(state)["seedings"].astype(np.int64)
        return self._seed_games(np.ones(self.num_envs, np.bool_))

    def close(self) -> None:
        """Stop the games' threads; may be called twice."""
        if not self._vector.closed:
            self._vector.close()
            del self._vector.ale  # its threads end with it

    def _checked(self, state: Mapping[str, NDArray[np.generic]]) -> Mapping[str, NDArray[np.generic]]:
        held = len(state["lengths"])
        if held != self.num_envs:
            raise CheckpointError(f"the checkpoint holds {held} games: this run has {self.num_envs}")
        return state

    def _current(self) -> StepResult:
        if self._last is None or self._in_flight:
            raise RuntimeError("recv, reset or restore must come first")
        return self._last

    def _recv(self) -> StepResult:
        last = self._current()
        obs, reward, terminated, truncated, info = self._vector.recv()
        reset = last.terminated | last.truncated
        self._last = StepResult(
            self._planes(obs), reward.astype(np.float32), terminated, truncated, info["lives"], reset
        )
        return self._last

    def _seed_games(self, mask: NDArray[np.bool_]) -> StepResult:
        """Give the games in `mask` their next seed and start them with an empty log."""
        for i in np.flatnonzero(mask):
            self._seeds[i] = game_seed(self._seed, int(i), int(self._seedings[i]))
        self._seedings[mask] += 1
        self._lengths[mask] = 0
        return self._reset_to_seeds(mask)

    def _reset_to_seeds(self, mask: NDArray[np.bool_]) -> StepResult:
        """Start the games in `mask` from their seeds and leave the others unchanged."""
        pictures, info = self._vector.reset(seed=self._seeds[mask], options={"reset_mask": mask})
        obs = self._planes(pictures)
        if self._last is None or mask.all():
            reward, no = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, np.bool_)
            self._last = StepResult(obs, reward, no, no, info["lives"], ~no)
        else:
            _, reward, terminated, truncated, _, reset = self._last
            reward = np.where(mask, np.float32(0), reward)
            self._last = StepResult(obs, reward, terminated & ~mask, truncated & ~mask, info["lives"], reset | mask)
        return self._last

    def _planes(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Observations [N, planes, H, W] of stacks [N, S, H, W], or of [N, S, H, W, 3] in colour."""
        if self.spec.obs.channels == 1:
            return obs
        return np.ascontiguousarray(np.moveaxis(obs, -1, 2)).reshape(self.num_envs, *self.spec.obs.obs)

    def _load_logs(self, lengths: NDArray[np.int64], actions: NDArray[np.uint8]) -> None:
        capacity = max(int(lengths.max()), self._log.shape[1])
        self._log = np.zeros((self.num_envs, capacity), np.uint8)
        for i, log in enumerate(np.split(actions, np.cumsum(lengths)[:-1])):
            self._log[i, : len(log)] = log
        self._lengths = lengths


def _checksum(result: StepResult) -> int:
    return zlib.crc32(result.lives.data, zlib.crc32(result.obs.data))
