"""`pixelq import`: make an agent from another library's file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_file
from pixelq.errors import PixelqError
from pixelq.games import resolve_game

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The zip that Stable-Baselines3's DQN saved, or CleanRL's .cleanrl_model: DQN on the Nature network."""
    source: Annotated[Literal["sb3", "cleanrl"], tyro.conf.arg(name="from", metavar="LIBRARY")]
    """The library that trained it: sb3 or cleanrl."""
    game: Annotated[str, tyro.conf.arg(metavar="G")]
    """Game: a ROM name or Gymnasium id. The id says whether actions were sticky in training."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.safetensors")]
    """Agent file to write. An existing file is replaced."""
    no_fire_after_life_loss: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """FIRE was not pressed after lost lives in training. Both libraries' wrappers press it."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Make an agent from another library's file. Only weights are read; nothing is unpickled."
    options = parse(_Options, words, "pixelq import", about)
    resolve_game(options.game)
    check_new_file("--out", options.out, ".safetensors", "an agent file", "agent")
    if not options.file.is_file():
        raise PixelqError(f"{options.file} is no file: give a zip of Stable-Baselines3 or a .cleanrl_model")

    from pixelq.interop.exports import export
    from pixelq.interop.foreign import import_agent

    fire = not options.no_fire_after_life_loss
    agent = import_agent(options.file, options.source, options.game, fire_after_life_loss=fire)
    export(agent, options.out)
    card = agent.card
    print(f"{options.out}: {card.game}, {card.preset}, step {card.step:,}, actions {' '.join(card.action_meanings)}")
    return 0
