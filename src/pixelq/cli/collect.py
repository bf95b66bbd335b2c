"""`pixelq collect`: write an agent's games as an offline dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_place
from pixelq.cli.players import check_play, open_player, show_games
from pixelq.evaluation import Changes
from pixelq.evaluation.minari_folder import check_collection

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory, a .safetensors or .onnx file, hf:USER/NAME, `breakout` (ships with pixelq), or `random`."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write, new or empty. Its name is the dataset's and ends in a version, e.g. breakout-v0."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 100_000
    """Steps to write, at least. Games are whole, so the last ones go beyond."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="P")] = None
    """Protocol: nature (default on Atari), noop, dopamine, machado, or plain (default elsewhere)."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Seed of the games and of all random choices. The same seed gives the same games."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network lives."""
    epsilon: Annotated[float | None, tyro.conf.arg(metavar="E")] = None
    """ε in place of the protocol's."""
    sticky: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Sticky-action probability in place of the protocol's."""
    noops: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """No-op frames at a game's start, at most, in place of the protocol's."""
    max_frames: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Frame cap of a game in place of the protocol's."""
    game: Annotated[str | None, tyro.conf.arg(metavar="G")] = None
    """Game for `random`: a ROM name, a Gymnasium id or `module:name` (default: breakout). Agents play their own."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Write whole games, every picture bit for bit, as an offline dataset that Minari reads."
    options = parse(_Options, words, "pixelq collect", about)
    changes = Changes(options.epsilon, options.sticky, options.noops, options.max_frames)
    check_play(options.agent, options.game, options.protocol, 1, options.seed, changes)
    check_collection(options.out, options.steps)
    check_new_place("--out", options.out)

    from pixelq.evaluation.collect import collect
    from pixelq.evaluation.players import conditions

    player = open_player(options.agent, options.game, options.device)
    protocol = conditions(player, options.protocol, changes)
    with show_games(f"{player.game}, protocol {protocol.name}") as progress:
        made = collect(player, options.out, options.steps, options.seed, protocol=protocol, progress=progress)
    print(made.settings)
    print(f"{made.games} games, {made.steps:,} steps, mean raw score {made.mean:.2f}")
    print(f"{made.path}: {made.bytes / 1e6:.1f} MB, {made.bytes / made.steps:.0f} bytes a step")
    print(f'to read it: MINARI_DATASETS_PATH={made.path.absolute().parent} and minari.load_dataset("{made.path.name}")')
    return 0
