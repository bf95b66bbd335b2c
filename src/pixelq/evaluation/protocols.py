"""Named evaluation protocols: a score's meaning depends on its protocol. Imports no torch."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pixelq.config import FRAME_SKIP, EnvConfig, ViewConfig
from pixelq.errors import PixelqError
from pixelq.games import TEST_GAMES, did_you_mean, game_kind

__all__ = ["AS_NAMED", "DEFAULT_PROTOCOL", "PROTOCOLS", "Changes", "Protocol", "choose_protocol", "find_protocol"]

_ACTIONS = {
    "trained": "the agent's own actions",
    "minimal": "the game's minimal actions",
    "full": "all 18 actions",
}
_MOST_NOOPS, _MOST_FRAMES = 10_000, 10**9


class Changes(NamedTuple):
    """Conditions that replace a protocol's; None: as in the protocol."""

    epsilon: float | None = None  # probability of a random action at each step
    sticky: float | None = None  # probability that the emulator repeats the last action, at each frame
    noops: int | None = None  # most no-op frames at a game's start
    max_frames: int | None = None  # longest game in emulator frames; other games than Atari count four a step

    def check(self) -> None:
        """Refuse values that no game supports.

        Raises:
            PixelqError: names the first value out of range.
        """
        for option, share in (("--epsilon", self.epsilon), ("--sticky", self.sticky)):
            if share is not None and not 0 <= share <= 1:
                raise PixelqError(f"{option} is {share:g}: must be between 0 and 1")
        if self.noops is not None and not 0 <= self.noops <= _MOST_NOOPS:
            raise PixelqError(f"--noops is {self.noops}: must be between 0 and {_MOST_NOOPS:,}")
        if self.max_frames is not None and not FRAME_SKIP <= self.max_frames <= _MOST_FRAMES:
            raise PixelqError(f"--max-frames is {self.max_frames}: must be between {FRAME_SKIP} and {_MOST_FRAMES:,}")

    def check_game(self, game: str) -> None:
        """Refuse conditions that a game does not have.

        Args:
            game: a resolved game's name.

        Raises:
            PixelqError: names the first condition that it does not have.
        """
        absent = {"atari": (), "test": ("sticky", "noops", "max_frames")}.get(game_kind(game), ("sticky", "noops"))
        for name in absent:
            if getattr(self, name) is not None:
                raise PixelqError(f"--{name.replace('_', '-')} means nothing to {game}: leave it out")


AS_NAMED = Changes()


class _Condition(NamedTuple):
    """One of the conditions that may replace a protocol's."""

    field: str  # of `Protocol`
    word: str  # in a changed protocol's name


_CONDITIONS = {  # by their names in `Changes`, in the order of the protocol's text
    "epsilon": _Condition("epsilon", "ε"),
    "sticky": _Condition("sticky", "sticky"),
    "noops": _Condition("noop_max", "no-ops"),
    "max_frames": _Condition("max_frames", "cap"),
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
    """The set of actions: the agent's own, the game's minimal set, or all 18."""

    def changed(self, changes: Changes) -> "Protocol":
        """A protocol with changed conditions and a name that lists them: «nature, ε 0.001».

        Args:
            changes: the conditions; those that equal the protocol's change nothing.
        """
        given = {field: getattr(changes, option) for option, (field, _) in _CONDITIONS.items()}
        new = dataclasses.replace(self, **{field: value for field, value in given.items() if value is not None})
        told = [f"{_CONDITIONS[option].word} {value}" for option, value in new._differs(self)]
        return dataclasses.replace(new, name=", ".join([self.name, *told]))

    @property
    def options(self) -> str:
        """The options of `pixelq eval` for it, e.g. `--protocol nature --epsilon 0.001`."""
        name = self.name.split(",")[0]
        words = [f"--{option.replace('_', '-')} {value}" for option, value in self._differs(PROTOCOLS.get(name, self))]
        return " ".join([f"--protocol {name}", *words])

    def _differs(self, other: "Protocol") -> list[tuple[str, str]]:
        """Conditions that differ from another protocol's, as typed options, by the names of `Changes`."""
        own = {option: getattr(self, field) for option, (field, _) in _CONDITIONS.items()}
        return [
            (option, f"{value:g}" if isinstance(value, float) else str(value))
            for option, value in own.items()
            if value != getattr(other, _CONDITIONS[option].field)
        ]

    @property
    def file_word(self) -> str:
        """The name as a part of a file name, plain letters only."""
        return re.sub(r"[^\w.]+", "-", self.name.replace("ε", "epsilon"))

    @property
    def max_steps(self) -> int:
        """Other games than Atari's are cut after this many steps."""
        return self.max_frames // FRAME_SKIP

    def env_config(self, full_action_space: bool, view: ViewConfig | None = None) -> EnvConfig:
        """The games' settings.

        Args:
            full_action_space: the agent was trained with all 18; counts only if `actions` is "trained".
            view: the player's observations; None: Atari's.
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
            game: ROM name, or `catch`, which uses only ε.
            fire_assist: FIRE is pressed after a lost life.
            random: the player acts at random and ignores ε.
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
        PixelqError: unknown; the line lists the known ones.
    """
    if name not in PROTOCOLS:
        hint = did_you_mean(name, tuple(PROTOCOLS))
        raise PixelqError(f'unknown protocol "{name}"{hint}; there are: {", ".join(PROTOCOLS)}')
    return PROTOCOLS[name]


def choose_protocol(protocol: Protocol | str | None, game: str, changes: Changes = AS_NAMED) -> Protocol:
    """The protocol for a game.

    Args:
        protocol: the protocol or its name; None: `nature`, or `plain` for other games than Atari's.
        game: a resolved game's name.
        changes: conditions that replace the protocol's.

    Raises:
        PixelqError: the name is unknown, or the game does not have one of the conditions.
    """
    own = game_kind(game) in ("gymnasium", "function")
    changes.check()
    changes.check_game(game)
    if protocol is None:
        protocol = PROTOCOLS["plain" if own else DEFAULT_PROTOCOL]
    elif isinstance(protocol, str):
        name, protocol = protocol, find_protocol(protocol)
        if own and name != "plain":
            raise PixelqError(
                f"--protocol {name} is for Atari games: {game} is played under plain; leave --protocol out"
            )
    return protocol.changed(changes)
