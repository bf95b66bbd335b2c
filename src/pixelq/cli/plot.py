"""`pixelq plot`: curves and scores of runs, as a picture or in the terminal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_place
from pixelq.errors import PixelqError

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directories. Runs that differ only in their seed become one curve with a band."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Picture to write, .png or .svg. Without it the terminal shows the curves."""
    metric: Annotated[str, tyro.conf.arg(metavar="M")] = "train/return_per_game"
    """What the curves show, a key of metrics.jsonl."""
    axis: Literal["steps", "frames", "minutes"] = "steps"
    """Horizontal axis."""
    each: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """One curve for each run, even if runs differ only in their seed."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The last line of stdout is the plotted numbers as JSON."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Draw learning curves, mean and band over seeds, beside the scores that `pixelq eval` kept of the runs."
    options = parse(_Options, words, "pixelq plot", about)

    from pixelq.plots.picture import FORMATS
    from pixelq.plots.plot import plot

    if not options.runs:
        raise PixelqError("RUN is missing: pixelq plot RUN … [--out FILE.png|svg]")
    if options.out is not None:
        if options.out.suffix not in FORMATS:
            raise PixelqError(f"--out is {options.out}: must end in {' or '.join(FORMATS)}")
        check_new_place("--out", options.out)
    numbers = plot(options.runs, options.out, options.metric, options.axis, options.each)
    if options.out is not None:
        print(options.out, flush=True)
    if options.json:
        print(json.dumps(numbers.to_json()))
    return 0
