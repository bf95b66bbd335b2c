"""One Gymnasium game for pixelq: seeded game by game, with pictures in the network's format."""

import enum
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from pixelq.config import ObsShape, ViewConfig
from pixelq.envs.interface import game_seed
from pixelq.envs.preprocessing import Preprocessing
from pixelq.errors import GameError, PixelqError
from pixelq.games import maker_of
from pixelq.system import hide_windows

__all__ = ["MakeEnv", "Replayed", "Seat", "ignore_signals", "open_env"]

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]
_SMALLEST = 36  # sides of an observation that counts as a picture
_MOST_ACTIONS = 256  # replay memories keep an action in a byte
_ASK_TO_STOP = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # some only on some systems
_RESET = ("observation", "info")
_STEP = ("observation", "reward", "terminated", "truncated", "info")
_PICTURES = ("screen", "image", "pixels", "rgb")  # entries of observations that are taken first


class Replayed(NamedTuple):
    """What a game that was played again shows: the newest pictures, zeros before its start, and its last step."""

    pictures: NDArray[np.uint8]  # [stack, ...]
    reward: float
    terminated: bool
    truncated: bool
    reset: bool
    lives: int


def open_env(game: str, make_env: MakeEnv | None = None) -> gymnasium.Env[Any, Any]:
    """Make one environment.

    Args:
        game: `Id-v0`, `module:Id-v0`, `module:function`, or the name of a game that only `make_env` makes.
        make_env: makes it, if given.

    Raises:
        PixelqError: it cannot be made; one line that says why.
    """
    hide_windows()
    maker = make_env or maker_of(game)
    with _said_in_a_line(game, "cannot be made"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = _registered(maker) if isinstance(maker, str) else maker()
    if not isinstance(env, gymnasium.Env):
        raise PixelqError(f"{game} gives {type(env).__name__}: it must return a gymnasium.Env")
    return env


def _registered(name: str) -> gymnasium.Env[Any, Any]:
    """An environment by its id, with pictures if it has any."""
    settings: dict[str, Any] = {"disable_env_checker": True}
    try:
        env = gymnasium.make(name, render_mode="rgb_array", **settings)
        settings["render_mode"] = "rgb_array"
    except (TypeError, AssertionError, KeyError, ValueError):  # one that knows no such render mode
        env = gymnasium.make(name, **settings)
    if isinstance(env.action_space, spaces.Discrete) or not hasattr(env.unwrapped, "continuous"):
        return env
    env.close()  # Box2D's games have discrete actions if asked
    return gymnasium.make(name, continuous=False, **settings)


@contextmanager
def _said_in_a_line(game: str, what: str, kind: type[PixelqError] = PixelqError) -> Iterator[None]:
    """Turn any error of an environment into one line that names its place."""
    try:
        yield
    except PixelqError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split()) or "no message"
        ours = where.filename == __file__  # the call itself went wrong
        place = "" if ours else f" ({os.path.basename(where.filename)}, line {where.lineno})"
        raise kind(f"{game} {what}: {type(error).__name__}: {text}{place}") from error


def _parts(given: Any, wanted: Sequence[str], method: str) -> Any:
    """What `reset` or `step` gave, if it is Gymnasium's form; old environments have another."""
    if not isinstance(given, tuple) or len(given) != len(wanted):
        what = f"{len(given)} values" if isinstance(given, tuple) else f"a {type(given).__name__}"
        raise TypeError(f"{method} gives {what}: Gymnasium's form is ({', '.join(wanted)})")
    return given


class Seat(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One game for Gymnasium's vector environments; it starts the next game itself.

    The step after a game's end ignores its action and starts another. Every game has its own seed, from the run's
    seed, the seat and the game's number; with its actions they determine the game. `info` reports ends, so that a
    vector environment leaves them to the seat.

    Args:
        game: the game's name.
        make_env: makes the environment; None: the game's name says how.
        view: settings of the network's observations.
        max_steps: truncates a game after this many steps; 0: never.
        seed: the run's seed of games.
        index: which seat.

    Raises:
        PixelqError: the environment does not fit; the line says what would.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 Gymnasium's own form

    def __init__(
        self, game: str, make_env: MakeEnv | None, view: ViewConfig, max_steps: int, seed: int, index: int
    ) -> None:
        self._game, self._max_steps, self._seed, self._index = game, max_steps, seed, index
        self._shape: ObsShape = view.obs_shape
        self._skip = view.frame_skip or 1
        self._env = open_env(game, make_env)
        self._first_action, self.action_meanings = _actions(game, self._env)
        self.count, self.steps = 0, 0
        self.source = _source(game, self._env, view.observation)
        """The source of its pictures: an entry's name, `observation` or `render()`."""
        with _said_in_a_line(game, "cannot be started"):
            obs, info = _parts(self._env.reset(seed=game_seed(seed, index, 0)), _RESET, "reset")
            picture = self._picture(obs)
        self.has_lives = "lives" in info
        """Whether `info` has `lives`."""
        self.shown = picture.shape
        """Shape of the pictures that it shows."""
        self._see = Preprocessing(view, self.shown)
        self.observation_space = spaces.Box(0, 255, self._shape.picture, np.uint8)
        self.action_space: spaces.Space[np.int64] = spaces.Discrete(len(self.action_meanings))
        self._over = False

    @property
    def frames_per_second(self) -> float:
        """At the game's real speed."""
        return float(self._env.metadata.get("render_fps") or 30)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start a game; `seed` is its number."""
        del options
        self.count = seed or 0
        return self._begin()

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Play a step, or start the next game; terminated and truncated are reported in `info`."""
        if self._over:
            self.count += 1
            obs, info = self._begin()
            return obs, 0.0, False, False, info
        total, terminated, truncated = 0.0, False, False
        pictures: list[NDArray[np.uint8]] = []
        with _said_in_a_line(self._game, f"failed in game {self._index}", GameError):
            for frame in range(self._skip):
                given = self._env.step(self._first_action + int(action))
                obs, reward, terminated, truncated, info = _parts(given, _STEP, "step")
                total += float(reward)
                over = bool(terminated or truncated)
                if frame >= self._skip - 2 or over:
                    picture = self._picture(obs)
                    pictures.append(picture.copy() if frame == self._skip - 2 else picture)
                if over:
                    break
        if not np.isfinite(total):
            raise GameError(f"{self._game} gave the reward {total} in game {self._index}: it must be a finite number")
        self.steps += 1
        cut = self._max_steps > 0 and self.steps >= self._max_steps and not terminated
        self._over = bool(terminated or truncated or cut)
        told = self._told(info, bool(terminated), bool((truncated or cut) and not terminated), False)
        return self._see(pictures[-2:]), total, False, False, told

    def replay(self, counts: Sequence[int], logs: Sequence[NDArray[np.uint8]]) -> Replayed:
        """Play a game again from its number, given the actions of all seats."""
        picture, info = self.reset(seed=counts[self._index])
        pictures, reward = [picture], 0.0
        for action in logs[self._index]:
            picture, reward, _, _, info = self.step(np.int64(action))
            pictures = [*pictures, picture.copy()][-self._shape.stack :]
        zeros = [np.zeros_like(picture)] * (self._shape.stack - len(pictures))
        flags = (info["terminated"], info["truncated"], info["reset"])
        return Replayed(np.stack([*zeros, *pictures]), reward, *flags, info["lives"])

    def show(self) -> NDArray[np.uint8]:
        """The present picture for people, [H, W, 3] uint8 RGB."""
        rendered = self._env.render_mode == "rgb_array"
        picture = np.asarray(self._env.render()) if rendered else self._last
        if picture.ndim == 2:
            picture = picture[:, :, None]
        return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture[:, :, :3]

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _begin(self) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        with _said_in_a_line(self._game, f"failed at the start of game {self._index}", GameError):
            obs, info = _parts(self._env.reset(seed=game_seed(self._seed, self._index, self.count)), _RESET, "reset")
            picture = self._picture(obs)
        self._over, self.steps = False, 0
        return self._see([picture]), self._told(info, False, False, True)

    def _told(self, info: dict[str, Any], terminated: bool, truncated: bool, reset: bool) -> dict[str, Any]:
        lives = int(info.get("lives", 0))
        return {"terminated": terminated, "truncated": truncated, "reset": reset, "lives": lives}

    def _picture(self, obs: Any) -> NDArray[np.uint8]:
        """The game's picture now, [H, W] or [H, W, 1 or 3]."""
        if self.source == "render()":
            self._last = np.asarray(self._env.render())
        else:
            self._last = np.asarray(obs if self.source == "observation" else obs[self.source])
        if not _is_picture(self._last.shape, self._last.dtype, 1):
            raise PixelqError(
                f"{self._game}: {self.source} gives {self._last.dtype} of shape {list(self._last.shape)}: "
                "a picture is uint8 of rows × columns × 1 or 3"
            )
        return self._last


def ignore_signals(owner: int) -> None:
    """A game in its own process leaves every signal that asks to stop to the run, which saves first.

    A fork has the run's handlers, which would raise in the game. The process ends when the run closes its pipe.

    Args:
        owner: the run's process.
    """
    if os.getpid() != owner:
        for name in _ASK_TO_STOP:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)


def _is_picture(shape: tuple[int, ...], dtype: Any, smallest: int) -> bool:
    sides = shape[:2]
    colours = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return dtype == np.uint8 and len(sides) == 2 and colours and min(sides) >= smallest


def _actions(game: str, env: gymnasium.Env[Any, Any]) -> tuple[int, tuple[str, ...]]:
    """The number of the first action, and what each of them means."""
    space = env.action_space
    if not isinstance(space, spaces.Discrete):
        raise PixelqError(
            f"{game} has the actions {space}: Q-learning needs Discrete ones; docs/your-own-game.md shows a wrapper"
        )
    count = int(space.n)
    if count > _MOST_ACTIONS:
        raise PixelqError(f"{game} has {count:,} actions: at most {_MOST_ACTIONS} are possible")
    words: Sequence[str] = ()
    base = env.unwrapped
    if hasattr(base, "get_action_meanings"):
        words = [str(word) for word in base.get_action_meanings()]
    elif hasattr(base, "actions") and isinstance(base.actions, enum.EnumMeta):
        words = list(base.actions.__members__)
    if len(words) != count:
        words = [str(action) for action in range(count)]
    return int(space.start), tuple(words)


def _source(game: str, env: gymnasium.Env[Any, Any], wanted: str) -> str:
    """The source of the pictures."""
    space = env.observation_space
    entries = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
    if wanted not in ("auto", "render"):
        if wanted not in entries:
            raise PixelqError(f"--env.observation {wanted}: {game} has {', '.join(entries)}, and render")
        return wanted
    good = [
        name
        for name, part in entries.items()
        if part.shape is not None and _is_picture(part.shape, part.dtype, _SMALLEST)
    ]
    if wanted == "auto" and good:
        named = [name for name in _PICTURES if name in good]
        if len(good) > 1 and not named:
            raise PixelqError(f"{game} has several pictures: choose --env.observation {' or '.join(good)}")
        return (named or good)[0]
    if env.render_mode == "rgb_array":
        return "render()"
    _refuse(game, env, wanted, space)


def _refuse(game: str, env: gymnasium.Env[Any, Any], wanted: str, space: Any) -> NoReturn:
    """Say why there are no pictures."""
    modes = env.metadata.get("render_modes") or []
    if "rgb_array" in modes:
        raise PixelqError(f'{game} has render mode {env.render_mode}: make it with render_mode="rgb_array"')
    why = "it has no render mode rgb_array"
    if wanted == "render":
        raise PixelqError(f"--env.observation render: {game} cannot be rendered: {why}")
    raise PixelqError(f"{game} shows no picture: its observations are {space}, and {why}")
