"""`pixelq train`: start a run."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from pixelq.cli.options import parse
from pixelq.config import TrainConfig, validate
from pixelq.errors import PixelqError
from pixelq.games import resolve_game
from pixelq.presets import DEFAULT_PRESET, PRESETS, preset

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    run: Path | None = None
    """Directory of the run, a new one; default: runs/GAME-PRESET-sSEED-TIME."""
    init: str | None = None
    """Agent whose weights to begin with: a run directory or a .safetensors file."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    words = list(words)
    name = words.pop(0) if words and not words[0].startswith("-") else DEFAULT_PRESET
    default = _Options(preset(name))
    options = parse(_Options, words, f"pixelq train {name}", PRESETS[name].summary, default)
    config = dataclasses.replace(options.config, preset=name)
    # everything that can be wrong without torch is said before torch is loaded
    validate(config)
    game = resolve_game(config.game).name
    place = options.run or Path("runs") / f"{game}-{name}-s{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    _check_place(place)
    if options.init is not None and not Path(options.init).exists():
        raise PixelqError(f"--init {options.init}: no such file or run directory")

    from pixelq.training.run import train

    result = train(config, place, options.init)
    return 130 if result.interrupted else 0


def _check_place(place: Path) -> None:
    from pixelq.run.rundir import RunDir

    if place.exists():
        RunDir.create(place)  # raises, and says why
