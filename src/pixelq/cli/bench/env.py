"""`pixelq bench env`: the games alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from pixelq.cli.bench.checks import check_seconds
from pixelq.cli.bench.tables import megabytes, print_json, print_table
from pixelq.cli.options import parse
from pixelq.config import EnvConfig, TrainConfig, validate
from pixelq.errors import PixelqError
from pixelq.games import resolve_game

if TYPE_CHECKING:
    from pixelq.bench.env import EnvMeasurement

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    game: Annotated[str, tyro.conf.arg(metavar="G")] = "breakout"
    """ROM name, Gymnasium id or `module:name`."""
    envs: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N …")] = (1, 8)
    """Games at once. Each number is measured separately."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Threads of the emulator, at most one a game. 0: one a core."""
    seconds: Annotated[float, tyro.conf.arg(metavar="S")] = 5.0
    """Seconds to play with each number of games."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The last line of stdout is the results as JSON."""


def run(words: Sequence[str]) -> int:
    """Run the benchmark and return the exit status."""
    about = "Play games at random and count frames: four a step, skipped frames included."
    options = parse(_Options, words, "pixelq bench env", about)
    check_seconds(options.seconds)
    if not options.envs:
        raise PixelqError("--envs needs a value; see: pixelq bench env --help")
    for envs in options.envs:
        validate(TrainConfig(envs=envs, threads=options.threads))
    game = resolve_game(options.game).name

    from pixelq.bench.env import bench_env

    results = [bench_env(game, envs, EnvConfig(), options.threads, options.seconds) for envs in options.envs]
    print_table([_row(result) for result in results])
    if options.json:
        print_json([result._asdict() for result in results])
    return 0


def _row(result: "EnvMeasurement") -> dict[str, str]:
    return {
        "game": result.game,
        "games": str(result.envs),
        "threads": str(result.threads),
        "steps/s": f"{result.steps_per_second:,.0f}",
        "frames/s": f"{result.frames_per_second:,.0f}",
        "frames/s a core": f"{result.frames_per_second_per_core:,.0f}",
        "observations/s": megabytes(result.bytes_per_second),
        "peak memory": megabytes(result.peak_resident_bytes),
    }
