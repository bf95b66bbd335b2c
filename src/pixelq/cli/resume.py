"""`pixelq resume`: go on with a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.errors import PixelqError
from pixelq.run.rundir import RunDir

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Another device than before."""
    total_steps: int | None = None
    """Another length than before."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    options = parse(_Options, words, "pixelq resume", "Go on with a run from its newest good checkpoint.")
    RunDir.open(options.run)
    if options.total_steps is not None and options.total_steps < 1:
        raise PixelqError(f"--total-steps is {options.total_steps}: must be at least 1")

    from pixelq.training.run import resume

    result = resume(options.run, options.device, options.total_steps)
    return 130 if result.interrupted else 0
