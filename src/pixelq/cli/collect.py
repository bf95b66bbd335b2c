"""`pixelq collect`: write an agent's games as an offline dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_place
from pixelq.cli.players import Play, open_play, show_games
from pixelq.evaluation.minari_folder import check_collection

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    play: Annotated[Play, tyro.conf.arg(name="")]
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write, new or empty. Its name is the dataset's and ends in a version, e.g. breakout-v0."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 100_000
    """Steps to write, at least. Games are whole, so the last ones go beyond."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Write whole games, every picture bit for bit, as an offline dataset that Minari reads."
    options = parse(_Options, words, "pixelq collect", about)
    options.play.check()
    check_collection(options.out, options.steps)
    check_new_place("--out", options.out)

    from pixelq.evaluation.collect import collect

    player, protocol = open_play(options.play)
    with show_games(f"{player.game}, protocol {protocol.name}") as progress:
        made = collect(player, options.out, options.steps, options.play.seed, protocol=protocol, progress=progress)
    print(made.settings)
    print(f"{made.games} game{'s' * (made.games != 1)}, {made.steps:,} steps, mean raw score {made.mean:.2f}")
    print(f"{made.path}: {made.bytes / 1e6:.1f} MB, {made.bytes / made.steps:.0f} bytes a step")
    print(f'to read it: MINARI_DATASETS_PATH={made.path.absolute().parent} and minari.load_dataset("{made.path.name}")')
    return 0
