"""Games of Gymnasium's side by side, with a log of actions from which they can be restored bit for bit."""

import contextlib
import dataclasses
import os
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn

import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from numpy.typing import NDArray

from pixelq.config import EnvConfig
from pixelq.envs.interface import EnvSpec, StepResult, check_actions
from pixelq.envs.seat import MakeEnv, Replayed, Seat, ignore_signals
from pixelq.errors import CheckpointError, GameError
from pixelq.system import cores

__all__ = ["GymnasiumEnvs"]

_EXAMINED_STEPS = 33  # of each of three games when a run begins
_SLOW_SECONDS = 1e-3  # a step that takes longer is worth a process: handing it over takes a third of that
_LAST_WORDS_SECONDS = 5.0


class _Examined(NamedTuple):
    """What the first steps have shown."""

    spec: EnvSpec
    seconds_a_step: float


class GymnasiumEnvs:
    """N games of one kind in Gymnasium's vector environments. A game is its number and the actions since its start.

    Args:
        game: `Id-v0`, `module:Id-v0`, `module:function`, or the name of a game that only `make_env` makes.
        num_envs: games at once, N.
        seed: every game's own seed is derived from it.
        env: how they are played; of its settings for Atari none counts.
        make_env: makes one environment; None: the game's name says how.

    Raises:
        PixelqError: the game cannot be made, or does not fit.
    """

    def __init__(self, game: str, num_envs: int, seed: int, env: EnvConfig, make_env: MakeEnv | None = None) -> None:
        self._game, self.num_envs = game, num_envs
        make = partial(_make_seat, os.getpid(), game, make_env, env, seed)
        examined = _examine(game, make, env)
        processes = _wants_processes(env, num_envs, examined.seconds_a_step)
        where = f"{num_envs} processes" if processes else "one thread"
        self.spec = dataclasses.replace(examined.spec, view=f"{examined.spec.view}; {where}")
        seats = [partial(make, index) for index in range(num_envs)]
        self._vector: AsyncVectorEnv | SyncVectorEnv
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if processes:
                # a fork needs no main module that can be imported again
                context = "fork" if sys.platform == "linux" else None
                self._vector = AsyncVectorEnv(seats, copy=False, context=context)
            else:
                self._vector = SyncVectorEnv(seats, copy=False)
        self._counts = np.zeros(num_envs, np.int64)  # the number of each game
        self._log = np.zeros((num_envs, 1_024), np.uint8)  # actions since its start
        self._lengths = np.zeros(num_envs, np.int64)  # how many they are
        self._last: StepResult | None = None
        self._sent: NDArray[np.int64] | None = None  # between send and recv

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """One for each action."""
        return self.spec.action_meanings

    def reset(self) -> StepResult:
        """Start all games from the seed given at construction."""
        return self._begin(np.zeros(self.num_envs, np.int64))

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start one step of every game; games in one thread play it in `recv`."""
        self._current()
        check_actions(actions, self.num_envs, len(self.action_meanings))
        self._sent = actions
        if isinstance(self._vector, AsyncVectorEnv):
            self._heard(self._vector.step_async, actions)

    def recv(self) -> StepResult:
        """The step that `send` started."""
        last, actions = self._last, self._sent
        if last is None or actions is None:
            raise RuntimeError("recv without send")
        self._sent = None
        vector = self._vector
        play = vector.step_wait if isinstance(vector, AsyncVectorEnv) else partial(vector.step, actions)
        pictures, reward, _, _, info = self._heard(play)
        reset = np.array(info["reset"], np.bool_)
        self._write(actions, reset)
        self._last = StepResult(
            self._pushed(last.obs, pictures, reset),
            np.array(reward, np.float32),
            np.array(info["terminated"], np.bool_),
            np.array(info["truncated"], np.bool_),
            np.array(info["lives"], np.int32),
            reset,
        )
        return self._last

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The number of each game and the actions since its start: one byte a step and game."""
        last = self._current()
        logs = [self._log[i, :length] for i, length in enumerate(self._lengths)]
        return {
            "counts": self._counts.copy(),
            "lengths": self._lengths.copy(),
            "actions": np.concatenate(logs),
            "checksum": np.array(_checksum(last), np.int64),
        }

    def restore(
        self, state: Mapping[str, NDArray[np.generic]], progress: Callable[[int, int], None] | None = None
    ) -> StepResult:
        """Play the logs again, all games at once if they have their own processes."""
        self._counts = self._checked(state)["counts"].astype(np.int64)
        lengths = state["lengths"].astype(np.int64)
        logs = np.split(state["actions"].astype(np.uint8), np.cumsum(lengths)[:-1])
        total = int(lengths.sum())
        if progress is not None:
            progress(0, total)
        self._lengths = lengths
        self._log = np.zeros((self.num_envs, max(int(lengths.max()), self._log.shape[1])), np.uint8)
        for i, log in enumerate(logs):
            self._log[i, : len(log)] = log
        self._heard(self._vector.reset, seed=[int(count) for count in self._counts])
        played: tuple[Replayed, ...] = self._heard(self._vector.call, "replay", self._counts.tolist(), logs)
        self._last = StepResult(
            np.stack([game.pictures for game in played]).reshape(self.num_envs, *self.spec.obs.obs),
            np.array([game.reward for game in played], np.float32),
            np.array([game.terminated for game in played], np.bool_),
            np.array([game.truncated for game in played], np.bool_),
            np.array([game.lives for game in played], np.int32),
            np.array([game.reset for game in played], np.bool_),
        )
        if progress is not None:
            progress(total, total)
        if _checksum(self._last) != int(state["checksum"]):
            raise CheckpointError(
                f"{self._game} plays differently now than when the checkpoint was written: "
                "pixelq resume --fresh-games continues with new games"
            )
        return self._last

    def restart(self, state: Mapping[str, NDArray[np.generic]]) -> StepResult:
        """Start the next game in every seat."""
        return self._begin(self._checked(state)["counts"].astype(np.int64) + 1)

    def show(self) -> NDArray[np.uint8]:
        """The first game's present picture for people, [H, W, 3] uint8 RGB."""
        picture: NDArray[np.uint8] = self._heard(self._vector.call, "show")[0]
        return picture

    def close(self) -> None:
        """Close the games and end their processes; may be called twice."""
        vector = self._vector
        if vector.closed:
            return
        broken = self._sent is not None or self._last is None
        for process in getattr(vector, "processes", []) if broken else ():
            process.kill()  # it heeds no gentler signal, and Gymnasium would wait for it
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            vector.close(**({"terminate": broken} if isinstance(vector, AsyncVectorEnv) else {}))
        vector.closed = True
        for process in getattr(vector, "processes", []):
            if process.is_alive():
                process.kill()
            process.join()

    def _begin(self, counts: NDArray[np.int64]) -> StepResult:
        pictures, info = self._heard(self._vector.reset, seed=[int(count) for count in counts])
        self._counts = counts
        self._lengths[:] = 0
        no = np.zeros(self.num_envs, np.bool_)
        blank = np.zeros((self.num_envs, *self.spec.obs.obs), np.uint8)
        obs = self._pushed(blank, pictures, ~no)
        lives = np.asarray(info["lives"], np.int32)
        self._last = StepResult(obs, no.astype(np.float32), no, no.copy(), lives, ~no)
        return self._last

    def _pushed(
        self, obs: NDArray[np.uint8], pictures: NDArray[np.uint8], reset: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Observations with one more picture, zeros before it where a game starts."""
        channels, *size = self.spec.obs[1:]
        pushed = np.concatenate([obs[:, channels:], pictures.reshape(self.num_envs, channels, *size)], axis=1)
        pushed[reset, :-channels] = 0
        return pushed

    def _write(self, actions: NDArray[np.int64], reset: NDArray[np.bool_]) -> None:
        """Keep the actions; a game that has just begun has none."""
        if int(self._lengths.max()) == self._log.shape[1]:
            self._log = np.concatenate([self._log, np.zeros_like(self._log)], axis=1)
        self._log[np.arange(self.num_envs), self._lengths] = actions
        self._lengths = np.where(reset, 0, self._lengths + 1)
        self._counts = self._counts + reset

    def _current(self) -> StepResult:
        if self._last is None or self._sent is not None:
            raise RuntimeError("recv, reset or restore must come first")
        return self._last

    def _checked(self, state: Mapping[str, NDArray[np.generic]]) -> Mapping[str, NDArray[np.generic]]:
        held = len(state["lengths"])
        if held != self.num_envs:
            raise CheckpointError(f"the checkpoint holds {held} games: this run has {self.num_envs}")
        return state

    def _heard(self, ask: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        """Ask the games for something, and say which process has ended if one has."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the error holds the worker's message
                return ask(*arguments, **settings)
        except GameError:
            self._last = None
            raise
        except (EOFError, OSError) as error:
            self._last = None
            self._say_who_died(error)

    def _say_who_died(self, error: Exception) -> NoReturn:
        for index, process in enumerate(getattr(self._vector, "processes", [])):
            process.join(_LAST_WORDS_SECONDS if not process.is_alive() else 0.2)
            code = process.exitcode
            if code is not None:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
                raise GameError(
                    f"the process of game {index} of {self._game} {how}; nothing saved is lost: pixelq resume continues"
                ) from error
        raise GameError(f"a process of {self._game} does not answer: {error}") from error


def _make_seat(owner: int, game: str, make_env: MakeEnv | None, env: EnvConfig, seed: int, index: int) -> Seat:
    ignore_signals(owner)
    return Seat(game, make_env, env.view, env.max_steps, seed, index)


def _wants_processes(env: EnvConfig, num_envs: int, seconds_a_step: float) -> bool:
    if env.vector != "auto":
        return env.vector == "processes"
    return num_envs > 1 and cores() > 1 and seconds_a_step > _SLOW_SECONDS


def _examine(game: str, make: Callable[[int], Seat], env: EnvConfig) -> _Examined:
    """Find out a game's spec, the time of a step, and whether it plays the same again."""
    with contextlib.closing(make(0)) as seat:
        _trace(seat, 1)
        started = time.perf_counter()
        first = _trace(seat, 0)  # after another game, which must leave nothing behind
        seconds = (time.perf_counter() - started) / _EXAMINED_STEPS
        shape, skip = env.obs_shape, env.frame_skip or 1
        shown = "×".join(map(str, seat.shown))
        kind = "in colour" if env.colour else "in grey"
        skipped = f"{skip} frames a step, the brighter of the last two" if skip > 1 else "1 frame a step"
        cut = f", cut by {env.crop}" if any(env.crop) else ""
        rewards = {"sign": "their sign", "scaled": f"times {env.reward_scale:g}", "raw": "as they are"}[env.rewards]
        view = (
            f"the network sees {seat.source}, {shown}{cut}, as {shape.height}×{shape.width} {kind}, the newest "
            f"{shape.stack} at once; {skipped}; rewards: {rewards}; actions: {' '.join(seat.action_meanings)}"
        )
        rows, columns = seat.show().shape[:2]
        facts = (seat.action_meanings, shape, skip, seat.has_lives)
        speed = seat.frames_per_second / skip
    with contextlib.closing(make(0)) as seat:
        same = _trace(seat, 0) == first
    return _Examined(EnvSpec(*facts, same, view, (rows, columns), speed), seconds)


def _trace(seat: Seat, count: int) -> list[object]:
    """The results of some random actions from a game's start."""
    chance = np.random.default_rng(count)
    seen: list[object] = [zlib.crc32(np.ascontiguousarray(seat.reset(seed=count)[0]).data)]
    for action in chance.integers(0, len(seat.action_meanings), _EXAMINED_STEPS):
        picture, reward, _, _, info = seat.step(action)
        seen += [zlib.crc32(np.ascontiguousarray(picture).data), reward, tuple(info.values())]
    return seen


def _checksum(result: StepResult) -> int:
    return zlib.crc32(result.lives.data, zlib.crc32(np.ascontiguousarray(result.obs).data))
