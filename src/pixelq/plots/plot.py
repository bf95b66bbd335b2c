"""Runs as a picture, on the terminal or in a file."""

from collections.abc import Sequence
from pathlib import Path

from pixelq.errors import PixelqError
from pixelq.plots.numbers import Axis, Plotted, plotted
from pixelq.plots.picture import FORMATS, draw
from pixelq.plots.terminal import show

__all__ = ["plot"]


def plot(
    runs: Sequence[Path | str] | Path | str,
    out: Path | str | None = None,
    metric: str = "train/return_per_game",
    axis: Axis = "steps",
    each: bool = False,
) -> Plotted:
    """Draw learning curves, mean and band over seeds, beside the scores that evaluations left in the runs.

    Args:
        runs: one run directory or several; runs that differ only in their seed become one curve with a band.
        out: the picture, a name that ends in `.png` or `.svg`; its folder is made, a file of that name is replaced.
            None: the curves are printed.
        metric: the metric to draw, a key of `metrics.jsonl`.
        axis: the horizontal axis: `steps`, `frames` or `minutes`.
        each: a curve for every run, even if runs differ only in their seed.

    Returns:
        The numbers that are drawn.

    Raises:
        PixelqError: no runs, one is no run, is damaged or has no such metric, or two are the same run or the same seed.
        StorageError: the picture cannot be written.
    """
    paths = [Path(runs)] if isinstance(runs, Path | str) else [Path(run) for run in runs]
    place = None if out is None else Path(out)
    if not paths:
        raise PixelqError("no runs are given: name at least one run directory")
    if place is not None and place.suffix not in FORMATS:
        raise PixelqError(f"--out is {place}: must end in {' or '.join(FORMATS)}")
    numbers = plotted(paths, metric, axis, each)
    if place is None:
        show(numbers)
    else:
        draw(numbers, place)
    return numbers
