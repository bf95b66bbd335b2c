"""The players (a trained agent or random play), and their games under a protocol."""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelq.actor import epsilon_greedy
from pixelq.agent import Agent, load_agent
from pixelq.config import EnvConfig, ViewConfig
from pixelq.device import resolve_device
from pixelq.envs import VectorEnvs, make_envs
from pixelq.envs.fire import fire_index
from pixelq.errors import PixelqError
from pixelq.evaluation.protocols import Changes, Protocol, choose_protocol
from pixelq.games import function_game, game_kind, resolve_game
from pixelq.hub import is_hub_address
from pixelq.shipped import RANDOM

if TYPE_CHECKING:
    import gymnasium

__all__ = [
    "MakeEnv",
    "Player",
    "Policy",
    "RandomAgent",
    "conditions",
    "env_config",
    "fire_assist",
    "make_games",
    "open_player",
    "view_of",
]

_DEFAULT_GAME = "breakout"
_FULL = 18  # actions there are in all

MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]


@dataclass(frozen=True)
class RandomAgent:
    """Plays a game uniformly at random; ignores ε."""

    game: str
    """A resolved game's name."""
    view: ViewConfig = field(default_factory=ViewConfig)
    """Settings of observations; only the frames of an action matter."""


Player = Agent | RandomAgent


def open_player(
    agent: Player | Path | str,
    game: str | None = None,
    device: str = "cpu",
    on_damage: Callable[[str], None] = warnings.warn,
    make_env: MakeEnv | None = None,
) -> Player:
    """Load an agent, or make the one that plays at random.

    Args:
        agent: a run directory, a `.safetensors` or `.onnx` file, the name of a shipped agent, or `random`; or one that
            is open already.
        game: what `random` plays, Breakout if None; an agent plays its own.
        device: where the network is to live.
        on_damage: called with one line for each newer checkpoint of the run that is damaged.
        make_env: makes the game for `random`, instead of `game`.

    Raises:
        PixelqError: the file, its game or the device is wrong.
    """
    name = None if game is None else resolve_game(game).name
    if agent == RANDOM:
        resolve_device(device)
        return RandomAgent(name or (_DEFAULT_GAME if make_env is None else function_game(make_env)))
    elsewhere = isinstance(agent, str | Path) and is_hub_address(agent)
    player = load_agent(agent, device, on_damage) if isinstance(agent, str | Path) else agent
    if name not in (None, player.game):
        raise PixelqError(f"--game is {game}: this agent plays {player.game}; leave --game out")
    if name is None and ":" in player.game and game_kind(player.game) == "gymnasium" and elsewhere:
        # code that a foreign file names runs only on request
        raise PixelqError(f"{agent} plays {player.game}, which runs that module's code: say --game {player.game}")
    return player


def fire_assist(player: Player) -> bool:
    """Whether FIRE is pressed after a lost life: an agent plays as it was trained, random play gets no help."""
    return isinstance(player, Agent) and player.card.fire_after_life_loss


def view_of(player: Player) -> ViewConfig:
    """How a player sees its game."""
    return player.card.view if isinstance(player, Agent) else player.view


def env_config(player: Player, protocol: Protocol) -> EnvConfig:
    """The settings of the games that a protocol gives a player."""
    full = isinstance(player, Agent) and player.card.full_action_space
    env = protocol.env_config(full, view_of(player))
    if game_kind(player.game) in ("atari", "test"):
        return env
    return dataclasses.replace(env, max_steps=protocol.max_steps)


def conditions(player: Player, protocol: Protocol | str | None, changes: Changes) -> Protocol:
    """What a player's games are played under.

    Args:
        player: the player.
        protocol: as in `choose_protocol`.
        changes: conditions that replace the protocol's.

    Raises:
        PixelqError: as in `choose_protocol`, or an ε for random play.
    """
    if changes.epsilon is not None and isinstance(player, RandomAgent):
        raise PixelqError("--epsilon means nothing to random, which plays every action at random: leave it out")
    return choose_protocol(protocol, player.game, changes)


class Policy:
    """Chooses a player's actions for N games at once.

    Args:
        player: who plays.
        action_meanings: the games' actions.
        epsilon: probability of a random action at each step; `RandomAgent` needs none.
        generator: random generator; every step draws the same number of values.
    """

    def __init__(
        self, player: Player, action_meanings: tuple[str, ...], epsilon: float, generator: np.random.Generator
    ) -> None:
        self._greedy = player.act if isinstance(player, Agent) else _never
        self._num_actions = len(action_meanings)
        self._fire = fire_index(action_meanings) if fire_assist(player) else None
        self._epsilon = epsilon if isinstance(player, Agent) else 1.0
        self._generator = generator

    def act(self, obs: NDArray[np.uint8], life_lost: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Choose an action for every game.

        Args:
            obs: [N, 4, 84, 84] current observations.
            life_lost: [N] games that lost a life at the last step and continue.

        Returns:
            [N] int64.
        """
        actions = epsilon_greedy(
            self._generator, len(obs), self._num_actions, self._epsilon, functools.partial(self._greedy, obs)
        )
        if self._fire is not None:
            actions[life_lost] = self._fire
        return actions


def _never(obs: NDArray[np.uint8]) -> NDArray[np.int64]:
    raise AssertionError(f"chance alone has no greedy action for {len(obs)} games")


def make_games(
    player: Player,
    protocol: Protocol,
    num_envs: int,
    seed: int,
    threads: int,
    make_env: MakeEnv | None = None,
) -> VectorEnvs:
    """Make the games of a protocol for a player.

    Args:
        player: who will play.
        protocol: the conditions.
        num_envs: games at once.
        seed: of the games.
        threads: of the emulator; 0: one for each core.
        make_env: makes one environment, if the game's name does not say how.

    Raises:
        PixelqError: unknown game, or the player's actions are not those that the protocol asks for.
    """
    agent = player if isinstance(player, Agent) else None
    if agent is not None:
        _check_full(protocol, f"this agent of {player.game}", agent.action_meanings)
    games = make_envs(player.game, num_envs, seed, env_config(player, protocol), threads, make_env)
    try:
        _check_full(protocol, player.game, games.action_meanings)
        if agent is not None and agent.action_meanings != games.action_meanings:
            raise PixelqError(
                f"protocol {protocol.name} plays {player.game} with {_listed(games.action_meanings)}: "
                f"this agent has {_listed(agent.action_meanings)}"
            )
    except PixelqError:
        games.close()
        raise
    return games


def _check_full(protocol: Protocol, who: str, action_meanings: tuple[str, ...]) -> None:
    if protocol.actions == "full" and len(action_meanings) != _FULL:
        raise PixelqError(
            f"protocol {protocol.name} plays with all {_FULL} actions: {who} has {_listed(action_meanings)}"
        )


def _listed(action_meanings: tuple[str, ...]) -> str:
    return f"{len(action_meanings)} actions ({' '.join(action_meanings)})"
