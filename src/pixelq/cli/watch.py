"""`pixelq watch`: an agent plays live in a page, and a person may take the joystick."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.players import check_play, open_player
from pixelq.shipped import RANDOM

if TYPE_CHECKING:
    from pixelq.evaluation.players import Player

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory (its newest checkpoint is followed), an agent file, hf:USER/NAME, `breakout`, or `random`."""
    host: Annotated[str, tyro.conf.arg(metavar="H")] = "127.0.0.1"
    """Address to listen at. Beyond this machine, the URL carries a token."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 8001
    """Port to listen at. 0: any free port."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Seed of the games and of all random choices at the start."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network lives."""
    game: Annotated[str | None, tyro.conf.arg(metavar="G")] = None
    """Game for `random`: a ROM name, a Gymnasium id or `module:name` (default: breakout). Agents play their own."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Serve a page on which an agent plays live, and a person may take the joystick from it."
    options = parse(_Options, words, "pixelq watch", about)
    check_play(options.agent, options.game, None, 1, options.seed)

    import torch

    from pixelq.viewer.guard import serve
    from pixelq.viewer.watch import Watch

    torch.set_num_threads(1)  # a step is one small forward: more threads wait for each other
    player = open_player(options.agent, options.game, options.device)
    watch = Watch(_newest(options.agent, player), options.agent, options.seed)
    serve(watch.app, options.host, options.port, f"{player.game}, played by {options.agent}")
    return 0


def _newest(agent: str, player: "Player") -> Callable[[], "Player"]:
    """A function that returns the agent to watch: for a run directory, its newest one."""
    from pixelq.agent import Agent
    from pixelq.viewer.newest import NewestAgent

    path = Path(agent)
    if isinstance(player, Agent) and agent != RANDOM and path.is_dir():
        return NewestAgent(path, player, tell=_tell)
    return lambda: player


def _tell(line: str) -> None:
    print(f"pixelq: {line}", file=sys.stderr, flush=True)
