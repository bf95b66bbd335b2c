"""`pixelq train`: start a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.actors import check_actors
from pixelq.cli.options import parse
from pixelq.cli.places import check_new_place
from pixelq.config import TrainConfig, validate, validate_view, with_actors
from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.games import file_word, resolve_game
from pixelq.presets import DEFAULT_PRESET, PRESETS, preset
from pixelq.run.newrun import RUNS
from pixelq.run.rundir import RunDir, find_agent
from pixelq.trackers.protocol import TrackerName, TrackOptions

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    run: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Run directory to create (default: runs/GAME-PRESET-sSEED-TIME)."""
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    """Show a bar, lines or nothing. auto: a bar if the terminal can draw one, else lines."""
    or_resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the run if it exists. One command then serves a job that is stopped and started again."""
    init: Annotated[str | None, tyro.conf.arg(metavar="AGENT")] = None
    """Start from this agent's weights: a run directory, a .safetensors file, hf:USER/NAME, or `breakout`."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT|auto|local")] = None
    """With --actors: the Ray cluster where actors play. local: this machine alone (default)."""
    actors: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Let N processes on a Ray cluster play, `--envs` games each. This process learns."""
    track: tuple[TrackerName, ...] = ()
    """Trackers to report the run to, one or several: wandb, mlflow, trackio, tensorboard."""
    tracking: Annotated[TrackOptions, tyro.conf.arg(name="track")] = field(default_factory=TrackOptions)


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    words, command = list(words), "pixelq train"
    name = DEFAULT_PRESET
    if words and not words[0].startswith("-"):
        name = words.pop(0)
        command += f" {name}"
    default = _Options(preset(name))
    about = (
        f"Train an agent: pixelq train [PRESET] [options]. Presets: {', '.join(PRESETS)}; see: pixelq presets. "
        f"Defaults below are from {name}: {PRESETS[name].summary}."
    )
    options = parse(_Options, words, command, about, default)
    if options.config.preset != name:
        raise PixelqError(f"--preset is not how to choose one: pixelq train {options.config.preset} …")
    config, actors = options.config, options.actors
    check_actors(options.ray, actors)
    if not options.track and options.tracking != TrackOptions():
        raise PixelqError(
            "--track.project, .name and .tags need a tracker: --track wandb, mlflow, trackio or tensorboard"
        )
    if actors is not None:
        config = with_actors(config, actors)
    # everything that can be wrong without torch is said before torch is loaded
    validate(config)
    game = resolve_game(config.game)
    validate_view(config.env, game.kind)
    if options.or_resume and options.run is None:
        raise PixelqError("--or-resume needs --run: the run is found again by its path")
    check_new_place("--run", options.run or RUNS / file_word(game.name))
    if options.run is not None and not (options.or_resume and (options.run / "config.json").is_file()):
        RunDir.check_new(options.run)
    if options.init is not None:
        find_agent(options.init)

    for library in (*options.track, *(["ray"] if actors is not None else [])):
        need(library, library)

    from pixelq.distributed.ray_actors import RayActors
    from pixelq.trackers.tracking import Tracking, saved_tracking
    from pixelq.training.run import train

    tracking = Tracking(options.track, options.tracking) if options.track else None
    if tracking is None and options.or_resume and options.run is not None:
        tracking = saved_tracking(RunDir(options.run))
    callbacks = () if tracking is None else (tracking,)
    result = train(
        options.config,
        options.run,
        options.init,
        options.progress,
        or_resume=options.or_resume,
        callbacks=callbacks,
        actors=None if actors is None else RayActors(options.ray or "local", actors),
    )
    return 130 if result.interrupted else 0
