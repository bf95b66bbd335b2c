"""Shared parts of `eval`, `record` and `collect`: options, player, protocol and progress."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pixelq.config import TrainConfig, validate
from pixelq.errors import PixelqError
from pixelq.evaluation import AS_NAMED, Changes, find_protocol
from pixelq.games import resolve_game
from pixelq.run.rundir import find_agent
from pixelq.shipped import RANDOM
from pixelq.training.output import can_draw

if TYPE_CHECKING:
    from pixelq.agent import Agent
    from pixelq.evaluation import Protocol
    from pixelq.evaluation.players import Player

__all__ = ["Play", "check_play", "open_agent", "open_play", "open_player", "show_games"]

_MOST_EPISODES = 100_000
_SEEDS = 2**31


@dataclass(frozen=True)
class Play:
    """Options of a verb that plays games to their ends."""

    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory, a .safetensors or .onnx file, hf:USER/NAME, `breakout` (ships with pixelq), or `random`."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="P")] = None
    """Protocol: nature (default on Atari), noop, dopamine, machado, or plain (default elsewhere)."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Seed of the games and of all random choices. The same seed gives the same games."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network lives."""
    game: Annotated[str | None, tyro.conf.arg(metavar="G")] = None
    """Game for `random`: a ROM name, a Gymnasium id or `module:name` (default: breakout). Agents play their own."""
    epsilon: Annotated[float | None, tyro.conf.arg(metavar="E")] = None
    """ε in place of the protocol's. The protocol's name then says so."""
    sticky: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Sticky-action probability in place of the protocol's. The protocol's name then says so."""
    noops: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """No-op frames at a game's start, at most, in place of the protocol's. The protocol's name then says so."""
    max_frames: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Frame cap of a game in place of the protocol's. The protocol's name then says so."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """CPU threads of the network and the emulator. 0: one a core."""

    @property
    def changes(self) -> Changes:
        """Conditions in place of the protocol's."""
        return Changes(self.epsilon, self.sticky, self.noops, self.max_frames)

    def check(self, episodes: int = 1) -> None:
        """Say what is wrong before torch is loaded.

        Args:
            episodes: games to play.

        Raises:
            PixelqError: the first that is wrong, with what would be right.
        """
        check_play(self.agent, self.game, self.protocol, episodes, self.seed, self.changes)
        validate(TrainConfig(threads=self.threads))


def check_play(
    agent: str, game: str | None, protocol: str | None, episodes: int, seed: int, changes: Changes = AS_NAMED
) -> None:
    """Check the options before torch is loaded.

    Args:
        agent: a run directory, a `.safetensors` file, the name of a shipped agent, or `random`.
        game: ROM name, Gymnasium id or `module:name`; None: the agent's own, Breakout for `random`.
        protocol: a protocol's name; None: the game's own.
        episodes: games to play.
        seed: of the games and of all random numbers.
        changes: conditions that replace the protocol's.

    Raises:
        PixelqError: names the first error and a correct value.
    """
    changes.check()
    if protocol is not None:
        find_protocol(protocol)
    if not 1 <= episodes <= _MOST_EPISODES:
        raise PixelqError(f"--episodes is {episodes}: must be between 1 and {_MOST_EPISODES:,}")
    if not 0 <= seed < _SEEDS:
        raise PixelqError(f"--seed is {seed}: must be between 0 and {_SEEDS - 1}")
    if game is not None:
        resolve_game(game)
    if agent != RANDOM:
        find_agent(agent)


def open_player(agent: str, game: str | None, device: str) -> "Player":
    """Load an agent, or make the one that plays at random.

    Args:
        agent: a run directory, a `.safetensors` file, the name of a shipped agent, or `random`.
        game: as in `check_play`.
        device: where the network is to live.

    Raises:
        PixelqError: the file, its game or the device is wrong.
    """
    from pixelq.evaluation import players

    with _told_of_damage() as on_damage:
        return players.open_player(agent, game, device, on_damage)


def open_play(play: Play) -> tuple["Player", "Protocol"]:
    """The player and the protocol that the options ask for.

    Args:
        play: checked.

    Raises:
        PixelqError: the agent's file, its game or the device is not what it should be.
    """
    import torch

    from pixelq.evaluation.players import conditions

    if play.threads:
        torch.set_num_threads(play.threads)
    player = open_player(play.agent, play.game, play.device)
    return player, conditions(player, play.protocol, play.changes)


def open_agent(agent: str, device: str) -> "Agent":
    """Load an agent, and say on stderr if newer checkpoints are damaged.

    Args:
        agent: a run directory, a `.safetensors` or `.onnx` file, the name of a shipped agent, or an address on the hub.
        device: where the network is to live.

    Raises:
        PixelqError: the file or the device is wrong.
    """
    from pixelq.agent import load_agent

    with _told_of_damage() as on_damage:
        return load_agent(agent, device, on_damage)


@contextmanager
def _told_of_damage() -> Iterator[Callable[[str], None]]:
    """Collects damage reports, and prints them on stderr if an agent can be loaded nevertheless."""
    damage: list[str] = []
    yield damage.append
    for line in damage:
        print(f"pixelq: {line}; using the checkpoint before it", file=sys.stderr)


@contextmanager
def show_games(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show on stderr, if it is a terminal, how many games are done; stdout is for the result.

    Args:
        what: said before the bar.

    Yields:
        What takes the games done and the games to do; None where nothing is shown.
    """
    if not can_draw(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
