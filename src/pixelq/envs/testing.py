"""Two small games for tests: one has pixels to decode, one is learned in a minute."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelq.envs.interface import EnvSpec, StepResult, check_actions
from pixelq.errors import CheckpointError

__all__ = ["Catch", "CounterEnv", "decode"]


def _uniform(seed: int, *counters: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) that depend on the seed and the counters alone.

    Source: the mixing function of Steele et al. 2014, "Fast splittable pseudorandom number generators".
    """
    bits = np.full(counters[0].shape, seed, np.uint64)
    for counter in counters:
        bits = (bits ^ counter.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _copied(state: Mapping[str, NDArray[np.generic]], num_envs: int) -> dict[str, Any]:
    held = len(state["terminated"])
    if held != num_envs:
        raise CheckpointError(f"the checkpoint holds {held} games: this run has {num_envs}")
    return {name: value.copy() for name, value in state.items()}


def decode(planes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The contents of a `CounterEnv`'s planes.

    Args:
        planes: [..., 84, 84] uint8.

    Returns:
        [..., 3] int64: env, episode and t of each plane; -1 for the zero planes before a game's start.

    Raises:
        ValueError: a plane that `CounterEnv` cannot have drawn.
    """
    words = np.ascontiguousarray(planes[..., 0, :16]).view(np.uint32).astype(np.int64)  # [..., 4]
    says = np.where(words[..., :1] > 0, words[..., 1:], -1)
    if not np.array_equal(_draw(says.reshape(-1, 3)).reshape(planes.shape), planes):
        raise ValueError("a plane is damaged")
    return says


def _draw(says: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Planes [M, 84, 84] that say [M, 3] env, episode and t; zeros where t is negative."""
    shade = (says @ np.array([7, 31, 1])) % 256
    planes = np.broadcast_to(shade.astype(np.uint8)[:, None, None], (len(says), 84, 84)).copy()
    words = np.concatenate([np.ones((len(says), 1), np.uint32), says.astype(np.uint32)], axis=1)
    planes[:, 0, :16] = words.view(np.uint8)
    planes[says[:, 2] < 0] = 0
    return planes


class _Counts(NamedTuple):
    """The state of a `CounterEnv`'s games, each [N]."""

    episode: NDArray[np.int64]
    t: NDArray[np.int64]  # steps since the game's start
    played: NDArray[np.int64]  # steps since the first game's start, those that start a game left out
    lives: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    reset: NDArray[np.bool_]


class CounterEnv:
    """N endless sequences of games. Their planes encode game, episode and step; see `decode`.

    Actions change nothing. What happens is drawn at random from the seed, or scripted.

    Args:
        num_envs: N games at once.
        seed: of what happens and of the rewards, whole numbers from -2 to 2.
        chances: how likely a step terminates the game, truncates it, or costs one of its 3 lives.
        script: in place of `chances`, what happens to each game step by step, over and over: `T` terminates,
            `U` truncates, `L` costs a life, `.` nothing. Steps that start a game are left out.
    """

    def __init__(
        self,
        num_envs: int,
        seed: int = 0,
        chances: tuple[float, float, float] = (0.03, 0.02, 0.05),
        script: Sequence[str] | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.spec = EnvSpec(("NOOP", "FIRE", "RIGHT", "LEFT"), has_lives=True)
        self._seed = seed
        self._edges = np.cumsum(chances)
        self._script = script
        self._env = np.arange(num_envs)
        self._now = self._start()

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """One for each action."""
        return self.spec.action_meanings

    def reset(self) -> StepResult:
        """Start episode 0 of every game."""
        self._now = self._start()
        return self.recv()

    def send(self, actions: NDArray[np.int64]) -> None:
        """Advance every game by a step."""
        check_actions(actions, self.num_envs, len(self.action_meanings))
        now = self._now
        reset = now.terminated | now.truncated
        event = np.where(reset, ".", self._events())
        lives = now.lives - ((event == "L") & (now.lives > 1))
        self._now = _Counts(
            episode=now.episode + reset,
            t=np.where(reset, 0, now.t + 1),
            played=now.played + ~reset,
            lives=np.where(reset, 3, np.where(event == "T", 0, lives)),
            terminated=event == "T",
            truncated=event == "U",
            reset=reset,
        )

    def recv(self) -> StepResult:
        """What the step gave."""
        now = self._now
        ages = now.t[:, None] + np.arange(-3, 1)  # [N, 4], negative before the game's start
        says = np.broadcast_arrays(self._env[:, None], now.episode[:, None], ages)
        obs = _draw(np.stack(says, axis=2).reshape(-1, 3)).reshape(self.num_envs, 4, 84, 84)
        reward = np.floor(5 * _uniform(self._seed + 1, self._env, now.episode, now.t)) - 2
        reward = np.where(now.reset, 0, reward).astype(np.float32)
        return StepResult(obs, reward, now.terminated, now.truncated, now.lives.astype(np.int32), now.reset)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The counters."""
        return {name: value.copy() for name, value in self._now._asdict().items()}

    def restore(
        self, state: Mapping[str, NDArray[np.generic]], progress: Callable[[int, int], None] | None = None
    ) -> StepResult:
        """Take over the counters."""
        self._now = _Counts(**_copied(state, self.num_envs))
        return self.recv()

    def restart(self, state: Mapping[str, NDArray[np.generic]]) -> StepResult:
        """Start the next episode in every game."""
        now = _Counts(**_copied(state, self.num_envs))
        self._now = self._start()._replace(episode=now.episode + 1, played=now.played)
        return self.recv()

    def close(self) -> None:
        """Nothing to stop."""

    def _start(self) -> _Counts:
        zeros, no = np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs, np.bool_)
        return _Counts(zeros, zeros, zeros, zeros + 3, no, no, ~no)

    def _events(self) -> NDArray[np.str_]:
        played = self._now.played
        if self._script is not None:
            return np.array([text[n % len(text)] for text, n in zip(self._script, played, strict=True)])
        draws = _uniform(self._seed, self._env, played)
        return np.array(["T", "U", "L", "."])[np.searchsorted(self._edges, draws, side="right")]


_BALLS = 10  # a game of Catch
_CELLS = 7  # its board's rows and columns
_LAST = _CELLS - 1
_MOVES = np.array([0, 1, -1])  # the paddle's, by action


class _Board(NamedTuple):
    """The state of a `Catch`'s games."""

    obs: NDArray[np.uint8]  # [N, 4, 84, 84]
    paddle: NDArray[np.int64]  # [N], its column in the bottom row
    row: NDArray[np.int64]  # [N], the ball's
    column: NDArray[np.int64]  # [N]
    drift: NDArray[np.int64]  # [N], -1, 0 or 1 columns a step
    dropped: NDArray[np.int64]  # [N], balls so far, over all games
    reward: NDArray[np.float32]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    reset: NDArray[np.bool_]  # [N]


class Catch:
    """N games of ten balls that fall to a paddle one after the other: +1 for each caught, -1 for each missed.

    The board has 7 x 7 cells. A ball falls a row a step, drifts left, right or not at all, which one plane
    alone doesn't show, and bounces off the walls. The paddle, in the bottom row, moves by a cell a step.

    Args:
        num_envs: N games at once.
        seed: of where the balls start and how they drift.
    """

    def __init__(self, num_envs: int, seed: int = 0) -> None:
        self.num_envs = num_envs
        self.spec = EnvSpec(("NOOP", "RIGHT", "LEFT"))
        self._seed = seed
        self._env = np.arange(num_envs)
        self._now = self._start()

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """One for each action."""
        return self.spec.action_meanings

    def reset(self) -> StepResult:
        """Start the first game."""
        self._now = self._start()
        return self.recv()

    def send(self, actions: NDArray[np.int64]) -> None:
        """Advance every game by a step."""
        check_actions(actions, self.num_envs, len(self.action_meanings))
        now = self._now
        reset = now.terminated
        fresh = now.row == _LAST  # the ball has landed: the next one appears
        new_column, new_drift = self._new_ball(now.dropped)
        ahead = now.column + now.drift
        drift = np.where((ahead < 0) | (ahead > _LAST), -now.drift, now.drift)
        row = np.where(fresh, 0, now.row + 1)
        column = np.where(fresh, new_column, now.column + drift)
        paddle = np.where(reset, _LAST // 2, np.clip(now.paddle + _MOVES[actions], 0, _LAST))
        dropped = now.dropped + fresh
        landed = row == _LAST
        self._now = _Board(
            obs=self._pushed(now.obs, reset, paddle, row, column),
            paddle=paddle,
            row=row,
            column=column,
            drift=np.where(fresh, new_drift, drift),
            dropped=dropped,
            reward=np.where(landed, np.where(column == paddle, 1, -1), 0).astype(np.float32),
            terminated=landed & (dropped % _BALLS == 0),
            reset=reset,
        )

    def recv(self) -> StepResult:
        """What the step gave."""
        now = self._now
        no, lives = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.int32)
        return StepResult(now.obs, now.reward, now.terminated, no, lives, now.reset)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The boards and the stacks."""
        return {name: value.copy() for name, value in self._now._asdict().items()}

    def restore(
        self, state: Mapping[str, NDArray[np.generic]], progress: Callable[[int, int], None] | None = None
    ) -> StepResult:
        """Take over the boards and the stacks."""
        self._now = _Board(**_copied(state, self.num_envs))
        return self.recv()

    def restart(self, state: Mapping[str, NDArray[np.generic]]) -> StepResult:
        """Give up the ball that falls and start the next game."""
        balls = _Board(**_copied(state, self.num_envs)).dropped
        self._now = self._start(-(-balls // _BALLS) * _BALLS)
        return self.recv()

    def close(self) -> None:
        """Nothing to stop."""

    def _start(self, dropped: NDArray[np.int64] | None = None) -> _Board:
        """First boards of new games, after this many balls."""
        zeros, yes = np.zeros(self.num_envs, np.int64), np.ones(self.num_envs, np.bool_)
        dropped = zeros if dropped is None else dropped
        paddle = zeros + _LAST // 2
        column, drift = self._new_ball(dropped)
        obs = np.zeros((self.num_envs, 4, 84, 84), np.uint8)
        obs = self._pushed(obs, yes, paddle, zeros, column)
        return _Board(obs, paddle, zeros, column, drift, dropped + 1, zeros.astype(np.float32), ~yes, yes)

    def _new_ball(self, dropped: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Column and drift of each game's next ball."""
        choice = np.floor(_uniform(self._seed, self._env, dropped) * _CELLS * 3).astype(np.int64)
        return choice // 3, choice % 3 - 1

    def _pushed(
        self,
        obs: NDArray[np.uint8],
        reset: NDArray[np.bool_],
        paddle: NDArray[np.int64],
        row: NDArray[np.int64],
        column: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        """The stacks with a plane of the boards as they are now, zeros before it where a game starts."""
        board = np.zeros((self.num_envs, _CELLS, _CELLS), np.uint8)
        board[self._env, _LAST, paddle] = 128
        board[self._env, row, column] = 255
        plane = board.repeat(84 // _CELLS, axis=1).repeat(84 // _CELLS, axis=2)
        pushed = np.concatenate([obs[:, 1:], plane[:, None]], axis=1)
        pushed[reset, :3] = 0
        return pushed
