"""`pixelq record`: write a video of an agent at play."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_file
from pixelq.cli.players import check_play, open_player, show_games
from pixelq.evaluation import Changes

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory, a .safetensors or .onnx file, hf:USER/NAME, `breakout` (ships with pixelq), or `random`."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.mp4")]
    """Video file to write. An existing file is replaced."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="P")] = None
    """Protocol: nature (default on Atari), noop, dopamine, machado, or plain (default elsewhere)."""
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Games, one after the other."""
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
    options = parse(_Options, words, "pixelq record", "Write whole games to an MP4, in colour and at real speed.")
    changes = Changes(options.epsilon, options.sticky, options.noops, options.max_frames)
    check_play(options.agent, options.game, options.protocol, options.episodes, options.seed, changes)
    check_new_file("--out", options.out, ".mp4", "a video", "video")

    from pixelq.evaluation.players import conditions
    from pixelq.evaluation.record import record

    player = open_player(options.agent, options.game, options.device)
    protocol = conditions(player, options.protocol, changes)
    with show_games(f"{player.game}, protocol {protocol.name}") as progress:
        made = record(player, options.out, options.episodes, options.seed, protocol=protocol, progress=progress)
    print(made.settings)
    print(f"raw scores {' '.join(f'{score:g}' for score in made.scores)}")
    print(f"{made.path}: {made.frames:,} pictures, {made.seconds:.1f} s")
    return 0
