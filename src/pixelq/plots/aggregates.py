"""A picture of recipes over games: performance profiles, and a score over steps and minutes."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Band", "draw_aggregates"]

_COLOURS = ("#0b6bcb", "#d9480f", "#2b8a3e", "#9c36b5", "#c2255c", "#0c8599", "#a87400", "#5f3dc4", "#59636e")
_PANELS = {
    "profile": ("performance profile", "human-normalised score τ", "share of runs with score > τ"),
    "steps": ("sample efficiency", "steps (4 emulator frames each)", "IQM, human-normalised"),
    "minutes": ("wall clock", "minutes of training", "IQM, human-normalised"),
}


class Band(NamedTuple):
    """A line with its interval."""

    x: NDArray[np.float64]  # [P]
    value: NDArray[np.float64]  # [P]
    low: NDArray[np.float64]  # [P]
    high: NDArray[np.float64]  # [P]


def draw_aggregates(labels: Sequence[str], bands: Mapping[str, Sequence[Band]]) -> bytes:
    """Draw three panels side by side.

    Args:
        labels: of the recipes.
        bands: by `profile`, `steps` and `minutes`, one a recipe.

    Returns:
        An SVG file; the same for the same numbers.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "pixelq", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(13, 3.8), layout="constrained")
        for axes, (name, (title, x, y)) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
            for index, (label, band) in enumerate(zip(labels, bands[name], strict=True)):
                colour = _COLOURS[index % len(_COLOURS)]
                marker = "o" if band.x.size == 1 else None
                axes.plot(band.x, band.value, color=colour, linewidth=1.6, label=label, marker=marker)
                axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.18, linewidth=0)
            axes.set_title(title)
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.grid(alpha=0.25)
        figure.axes[0].set_ylim(-0.02, 1.02)
        figure.axes[0].legend(loc="upper right", frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
