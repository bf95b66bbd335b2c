"""Returns per game and per life, from the results of steps."""

from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelq.envs.interface import StepResult

__all__ = ["Episode", "EpisodeTracker"]


class Episode(NamedTuple):
    """A finished game or life."""

    unit: Literal["game", "life"]
    env: int  # which of the N games
    total: float  # the return: raw score of a game, (clipped) rewards of a life
    steps: int  # agent steps it took


class EpisodeTracker:
    """Adds up rewards, and keeps the returns of the last `window` finished games and lives.

    The return per game is the raw score. The return per life sums the sign of the rewards between lost lives;
    the last life ends with the game. Steps that start a new game count for neither.

    Args:
        num_envs: N games at once.
        window: finished games, and finished lives, in each running mean.
        max_steps_per_life: close a life's return after this many steps, while the life continues; 0: never.
        clip: a life sums the sign of the rewards instead of the rewards.
        scored: [N] games that the running means are of; None: all.
    """

    def __init__(
        self,
        num_envs: int,
        window: int = 100,
        max_steps_per_life: int = 0,
        clip: bool = True,
        scored: NDArray[np.bool_] | None = None,
    ) -> None:
        self.games = 0  # finished so far
        self.lives = 0
        self._max_steps_per_life = max_steps_per_life
        self._clip = clip
        self._scored = np.ones(num_envs, np.bool_) if scored is None else scored
        self._lives_left = np.zeros(num_envs, np.int32)
        self._game_return = np.zeros(num_envs, np.float64)
        self._life_return = np.zeros(num_envs, np.float64)
        self._game_steps = np.zeros(num_envs, np.int64)
        self._life_steps = np.zeros(num_envs, np.int64)
        self._last_games: deque[float] = deque(maxlen=window)
        self._last_lives: deque[float] = deque(maxlen=window)

    def reset(self, result: StepResult) -> None:
        """Forget unfinished games: all start anew with `result`. Finished games stay."""
        for sums in (self._game_return, self._life_return, self._game_steps, self._life_steps):
            sums[:] = 0
        self._lives_left = result.lives.copy()

    def update(self, result: StepResult) -> tuple[NDArray[np.bool_], list[Episode]]:
        """Take in one step of all games.

        Returns:
            life_lost [N], True where a life was lost or the game terminated; and the games and lives that are
            finished with this step, a game after its last life. A drop to no lives at all is not a lost life:
            some games show it for some frames before they terminate, which is when it counts (as in
            `EpisodicLifeEnv` of the OpenAI baselines).
        """
        counts = ~result.reset
        for sums in (self._game_return, self._life_return, self._game_steps, self._life_steps):
            sums[result.reset] = 0  # zero already, unless a game was cut off without an end
        self._game_return += result.reward * counts
        self._life_return += (np.sign(result.reward) if self._clip else result.reward) * counts
        self._game_steps += counts
        self._life_steps += counts
        fewer = (result.lives < self._lives_left) & (result.lives > 0) & counts
        self._lives_left = result.lives.copy()
        life_lost = fewer | result.terminated
        game_over = result.terminated | result.truncated
        life_over = life_lost | game_over
        if self._max_steps_per_life:
            life_over |= self._life_steps >= self._max_steps_per_life
        finished = [self._close_life(int(i)) for i in np.flatnonzero(life_over)]
        finished += [self._close_game(int(i)) for i in np.flatnonzero(game_over)]
        return life_lost, finished

    def mean_per_game(self) -> float | None:
        """Mean raw score of the last finished games, None before the first."""
        return float(np.mean(self._last_games)) if self._last_games else None

    def mean_per_life(self) -> float | None:
        """Mean return of the last finished lives, None before the first."""
        return float(np.mean(self._last_lives)) if self._last_lives else None

    def in_mean(self, unit: Literal["game", "life"]) -> int:
        """How many games, or lives, the running mean is of."""
        return len(self._last_games if unit == "game" else self._last_lives)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything `restore` needs, as copies."""
        return {
            "finished": np.array([self.games, self.lives], np.int64),
            "lives_left": self._lives_left.copy(),
            "game_return": self._game_return.copy(),
            "life_return": self._life_return.copy(),
            "game_steps": self._game_steps.copy(),
            "life_steps": self._life_steps.copy(),
            "last_games": np.array(self._last_games, np.float64),
            "last_lives": np.array(self._last_lives, np.float64),
        }

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from where `state` was taken."""
        self.games, self.lives = (int(count) for count in state["finished"])
        self._lives_left = state["lives_left"].astype(np.int32)
        self._game_return = state["game_return"].astype(np.float64)
        self._life_return = state["life_return"].astype(np.float64)
        self._game_steps = state["game_steps"].astype(np.int64)
        self._life_steps = state["life_steps"].astype(np.int64)
        self._last_games = deque(state["last_games"].tolist(), maxlen=self._last_games.maxlen)
        self._last_lives = deque(state["last_lives"].tolist(), maxlen=self._last_lives.maxlen)

    def _close_life(self, env: int) -> Episode:
        life = Episode("life", env, float(self._life_return[env]), int(self._life_steps[env]))
        if self._scored[env]:
            self._last_lives.append(life.total)
        self.lives += 1
        self._life_return[env] = 0
        self._life_steps[env] = 0
        return life

    def _close_game(self, env: int) -> Episode:
        game = Episode("game", env, float(self._game_return[env]), int(self._game_steps[env]))
        if self._scored[env]:
            self._last_games.append(game.total)
        self.games += 1
        self._game_return[env] = 0
        self._game_steps[env] = 0
        return game
