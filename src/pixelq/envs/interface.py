"""The interface of every set of games."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelq.config import ATARI_SHAPE, ObsShape

__all__ = ["ACTORS", "RESEED_STEPS", "EnvSpec", "StepResult", "VectorEnvs", "check_actions", "game_seed"]

# after how many steps a game is seeded anew, by the device that learns: a seeded reset takes 0.1 to 0.2 s, in which no
# game continues; 64 games at 10,000 steps a second would have two of them every second after 5,000
RESEED_STEPS = {"cpu": 5_000, "cuda": 20_000, "mps": 5_000}

ACTORS = "actors"  # in the state of games that actors in other processes play, and only there


def game_seed(run_seed: int, env: int, count: int) -> int:
    """The seed, an int32 >= 0, for the `count`-th seeding of game `env`."""
    return int(np.random.SeedSequence([run_seed, env, count]).generate_state(1)[0] >> 1)


@dataclass(frozen=True)
class EnvSpec:
    """What a set of games is like: everything above asks here for shapes, actions and frames."""

    action_meanings: tuple[str, ...]
    """One for each action, e.g. ("NOOP", "FIRE", "RIGHT", "LEFT")."""
    obs: ObsShape = ATARI_SHAPE
    """Shape of the observations."""
    frames_per_step: int = 4
    """Frames that an action lasts."""
    has_lives: bool = False
    """Whether `StepResult.lives` says anything."""
    deterministic: bool = True
    """Whether a game is its seed and the actions since, so that it can be played again."""
    view: str = ""
    """The network's observations, in words; empty on Atari, where they are the usual ones."""
    screen: tuple[int, int] = (0, 0)
    """Rows and columns of the picture that a person sees; 0, 0: see `pixelq.evaluation.screens`."""
    steps_per_second: float = 15.0
    """Steps a second at the game's real speed."""


class StepResult(NamedTuple):
    """The result of one step of N games. The arrays are fresh: keep them, but do not write to them."""

    obs: NDArray[np.uint8]  # [N, 4, 84, 84] or [N, planes, H, W], newest last, zeros before a game's first
    reward: NDArray[np.float32]  # [N], raw score
    terminated: NDArray[np.bool_]  # [N], the game has ended; the next step starts a new one
    truncated: NDArray[np.bool_]  # [N], the frame cap cut the game; the next step starts a new one
    lives: NDArray[np.int32]  # [N], after the step; 0 throughout in games without lives
    reset: NDArray[np.bool_]  # [N], the action was ignored and obs starts a new game (reward 0)


class VectorEnvs(Protocol):
    """N games of one kind in step; the step after a game's end ignores its action and starts another."""

    num_envs: int
    spec: EnvSpec

    @property
    def action_meanings(self) -> tuple[str, ...]:
        """One for each action, e.g. ("NOOP", "FIRE", "RIGHT", "LEFT"), from `spec`."""
        ...

    def reset(self) -> StepResult:
        """Seed all games from the seed given at construction and start them; `reset` is True for all."""
        ...

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start one step of every game, and come back at once.

        Args:
            actions: [N] int64, indices into `action_meanings`.
        """
        ...

    def recv(self) -> StepResult:
        """Wait for the step that `send` started."""
        ...

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything `restore` needs, as copies; changes nothing, may be called between any recv and send."""
        ...

    def restore(
        self, state: Mapping[str, NDArray[np.generic]], progress: Callable[[int, int], None] | None = None
    ) -> StepResult:
        """Bring a new instance, made with the same arguments, to where `state` was taken.

        Args:
            state: what `state` gave.
            progress: called now and then with the steps done and the steps to do.

        Returns:
            The last result before `state` was called, bit for bit.

        Raises:
            CheckpointError: the state is of other games, or they no longer play as they did.
        """
        ...

    def restart(self, state: Mapping[str, NDArray[np.generic]]) -> StepResult:
        """Drop the games of `state` and start others, on a new instance made with the same arguments.

        Args:
            state: what `state` gave.

        Returns:
            Their first result, `reset` being True for all; no game that was played before is played again.

        Raises:
            CheckpointError: the state is of other games.
        """
        ...

    def close(self) -> None:
        """Stop the games' threads; may be called twice."""
        ...


def check_actions(actions: NDArray[np.int64], num_envs: int, num_actions: int) -> None:
    """Refuse anything but one action for each game.

    Raises:
        ValueError: `actions` is not [num_envs], or one is not from 0 to num_actions - 1.
    """
    if actions.shape != (num_envs,) or int(actions.min()) < 0 or int(actions.max()) >= num_actions:
        raise ValueError(f"actions must be {num_envs} numbers from 0 to {num_actions - 1}, got {actions}")
