"""`pixelq export`: write an agent to a file of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_file
from pixelq.cli.players import RANDOM, open_player
from pixelq.errors import PixelqError
from pixelq.run.rundir import find_agent
from pixelq.run.storage import storage_errors

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory (its newest checkpoint), a .safetensors file, or `breakout`, which comes with pixelq."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.safetensors")]
    """The agent's file; one of that name is replaced, as a whole."""
    weights: Literal["float32", "bfloat16", "float16"] = "float32"
    """How weights are stored; the two short ones halve the file and round the weights."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Write an agent's weights and card to one file, which eval, record, watch and train --init take."
    options = parse(_Options, words, "pixelq export", about)
    if options.agent == RANDOM:
        raise PixelqError("random has no weights: give a run directory or a .safetensors file")
    find_agent(options.agent)
    check_new_file("--out", options.out, ".safetensors", "an agent file", "agent")

    import torch

    from pixelq.agent import Agent, save_agent

    agent = open_player(options.agent, None, "cpu")
    assert isinstance(agent, Agent)
    with storage_errors(options.out):
        options.out.parent.mkdir(parents=True, exist_ok=True)
    save_agent(options.out, agent.network.state_dict(), agent.card, getattr(torch, options.weights))
    card, size = agent.card, options.out.stat().st_size
    print(f"{options.out}: {card.game}, {card.preset}, step {card.step:,}, {options.weights}, {size / 1e6:.1f} MB")
    return 0
