"""`pixelq resume`: continue a run."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.actors import check_actors
from pixelq.cli.options import parse
from pixelq.config import StopOn, TrainConfig, check_shares, from_json, validate
from pixelq.errors import ConfigError, PixelqError
from pixelq.extras import need
from pixelq.run.rundir import RunDir

__all__ = ["run"]

_CHECKED = ("threads", "total_steps", "checkpoint_every_steps", "stop_at")


@dataclass(frozen=True)
class _Options:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None
    """Device for this time (default: as before)."""
    threads: int | None = None
    """Threads for this time; 0: one a core (default: as before)."""
    no_cuda_graphs: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Use no CUDA graphs, this time."""
    no_compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compile nothing for a GPU, this time."""
    total_steps: int | None = None
    """New length of the run (default: as before)."""
    checkpoint_every_steps: int | None = None
    """New number of steps between checkpoints (default: as before)."""
    stop_on: StopOn | Literal["as-before"] = "as-before"  # tyro would also take None, which looks like `none`
    """New running mean that ends the run as solved. `none` continues a solved run."""
    stop_at: float | None = None
    """New value that the running mean must exceed. A higher value continues a solved run."""
    keep_going: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """From now on, train on when the disk is full, and try again at the next checkpoint."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT|auto|local")] = None
    """With --actors: the Ray cluster where actors play from now on. local: this machine alone (default)."""
    actors: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Let N processes on a Ray cluster play, an equal share of the run's games each. They start new games."""
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    """Show a bar, lines or nothing. auto: a bar if the terminal can draw one, else lines."""
    fresh_games: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start new games instead of replaying the old ones: faster, but the run is no longer bit for bit the same."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    options = parse(_Options, words, "pixelq resume", "Go on with a run from its newest good checkpoint.")
    _check(RunDir.open(options.run), options)

    from pixelq.distributed.ray_actors import RayActors
    from pixelq.trackers.tracking import saved_tracking
    from pixelq.training.run import resume

    tracking = saved_tracking(RunDir(options.run))
    result = resume(
        options.run,
        options.device,
        options.total_steps,
        threads=options.threads,
        cuda_graphs=False if options.no_cuda_graphs else None,
        compile=False if options.no_compile else None,
        checkpoint_every_steps=options.checkpoint_every_steps,
        stop_on=None if options.stop_on == "as-before" else options.stop_on,
        stop_at=options.stop_at,
        keep_going=options.keep_going or None,
        fresh_games=options.fresh_games,
        callbacks=() if tracking is None else (tracking,),
        progress=options.progress,
        actors=None if options.actors is None else RayActors(options.ray or "local", options.actors),
    )
    return 130 if result.interrupted else 0


def _check(run: RunDir, options: _Options) -> None:
    """Check the run's settings and the new ones before torch is loaded."""
    try:
        config: TrainConfig = from_json(TrainConfig, run.read_json("config.json"))
        validate(config)
    except ConfigError as error:
        raise PixelqError(f"{run.config} cannot be used: {error}") from error
    given = {name: getattr(options, name) for name in _CHECKED}
    config = dataclasses.replace(config, **{name: value for name, value in given.items() if value is not None})
    validate(config)
    check_actors(options.ray, options.actors)
    if options.actors is not None:
        check_shares(config, options.actors)
        need("ray", "ray")
