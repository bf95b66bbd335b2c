"""How an agent is evaluated, by name: what a score means depends on it. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from pixelq.config import FRAME_SKIP, EnvConfig, ViewConfig
from pixelq.errors import PixelqError
from pixelq.games import TEST_GAMES, did_you_mean, game_kind

__all__ = ["DEFAULT_PROTOCOL", "PROTOCOLS", "Protocol", "choose_protocol", "find_protocol"]

_ACTIONS = {
    "trained": "the agent's own actions",
    "minimal": "the game's minimal actions",
    "full": "all 18 actions",
}


@dataclass(frozen=True)
class Protocol:
    """The conditions under which games are played for a score."""

    name: str
    source: str
    noop_max: int
    """At most this many no-op frames at a game's start, drawn at random."""
    epsilon: float
    """Probability of a random action at each step."""
    max_frames: int
    """A game is cut after this many emulator frames."""
    sticky: float
    """Probability that the emulator repeats the last action, at each frame."""
    actions: Literal["trained", "minimal", "full"]
    """The actions there are: those the agent was trained with, the game's minimal set, or all 18."""

    @property
    def max_steps(self) -> int:
        """A game that is not Atari's is cut after this many steps."""
        return self.max_frames // FRAME_SKIP

    def env_config(self, full_action_space: bool, view: ViewConfig | None = None) -> EnvConfig:
        """The games' settings.

        Args:
            full_action_space: the agent was trained with all 18; counts only if `actions` is "trained".
            view: what the player sees; None: Atari's.
        """
        return EnvConfig(
            **vars(view or ViewConfig()),
            sticky=self.sticky,
            noop_max=self.noop_max,
            max_frames_per_game=self.max_frames,
            full_action_space=full_action_space if self.actions == "trained" else self.actions == "full",
            fire_at_start=True,
        )

    def describe(self, game: str, fire_assist: bool, random: bool = False) -> str:
        """One line that names every condition, to be printed with every score.

        Args:
            game: ROM name, or `catch`, which heeds only ε.
            fire_assist: FIRE is pressed after a lost life.
            random: the player acts at random, whatever ε says.
        """
        epsilon = "all actions random" if random else f"ε {self.epsilon:g}"
        noops = f"up to {self.noop_max} no-ops" if self.noop_max else "no no-ops"
        actions = _ACTIONS["minimal" if random and self.actions == "trained" else self.actions]
        if game in TEST_GAMES:
            return f"protocol {self.name}: {epsilon} ({game} has no no-ops, sticky actions, frame cap or FIRE)"
        if game_kind(game) != "atari":
            return f"protocol {self.name}: {epsilon}, cap {self.max_steps:,} steps a game, the environment's own limits"
        return (
            f"protocol {self.name}: cap {self.max_frames:,} frames a game, {noops}, "
            f"sticky {self.sticky:g}, {epsilon}, FIRE pressed at the start, "
            f"FIRE assist after a lost life {'on' if fire_assist else 'off'}, {actions}"
        )


DEFAULT_PROTOCOL = "nature"

_NATURE = "Mnih et al. 2015, «Human-level control through deep reinforcement learning», Methods"
_NOOP = "Quan & Ostrovski 2020, «DQN Zoo»"
_DOPAMINE = "Castro et al. 2018, «Dopamine: A Research Framework for Deep Reinforcement Learning»"
_MACHADO = "Machado et al. 2018, «Revisiting the Arcade Learning Environment»"
_PLAIN = "games as they are: no no-ops, no sticky actions; for games that are not Atari's"

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("nature", _NATURE, 30, 0.05, 18_000, 0.0, "trained"),
        Protocol("noop", _NOOP, 30, 0.01, 108_000, 0.0, "trained"),
        Protocol("dopamine", _DOPAMINE, 0, 0.001, 108_000, 0.25, "minimal"),
        Protocol("machado", _MACHADO, 0, 0.001, 108_000, 0.25, "full"),
        Protocol("plain", _PLAIN, 0, 0.01, 108_000, 0.0, "trained"),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        PixelqError: unknown; the line lists those there are.
    """
    if name not in PROTOCOLS:
        hint = did_you_mean(name, tuple(PROTOCOLS))
        raise PixelqError(f'unknown protocol "{name}"{hint}; there are: {", ".join(PROTOCOLS)}')
    return PROTOCOLS[name]


def choose_protocol(name: str | None, game: str) -> Protocol:
    """The protocol for a game.

    Args:
        name: the one that was asked for; None: `nature`, or `plain` where the game is not Atari's.
        game: a resolved game's name.

    Raises:
        PixelqError: unknown, or it says what that game does not have.
    """
    own = game_kind(game) in ("gymnasium", "function")
    if name is None:
        return PROTOCOLS["plain" if own else DEFAULT_PROTOCOL]
    protocol = find_protocol(name)
    if own and name != "plain":
        raise PixelqError(f"--protocol {name} is for Atari games: {game} is played under plain; leave --protocol out")
    return protocol
