"""`pixelq record`: write a video of an agent at play."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_file
from pixelq.cli.players import Play, open_play, show_games

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    play: Annotated[Play, tyro.conf.arg(name="")]
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.mp4")]
    """Video file to write. An existing file is replaced."""
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Games, one after the other."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    options = parse(_Options, words, "pixelq record", "Write whole games to an MP4, in colour and at real speed.")
    options.play.check(options.episodes)
    check_new_file("--out", options.out, ".mp4", "a video", "video")

    from pixelq.evaluation.record import record

    player, protocol = open_play(options.play)
    with show_games(f"{player.game}, protocol {protocol.name}") as progress:
        made = record(player, options.out, options.episodes, options.play.seed, protocol=protocol, progress=progress)
    print(made.settings)
    print(f"raw scores {' '.join(f'{score:g}' for score in made.scores)}")
    print(f"{made.path}: {made.frames:,} pictures, {made.seconds:.1f} s")
    return 0
