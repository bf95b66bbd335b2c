"""A picture of runs for a paper, by matplotlib."""

import io
import textwrap
from pathlib import Path
from typing import Any

from pixelq.evaluation.scores import REFERENCE
from pixelq.games import game_kind
from pixelq.plots.numbers import Plotted, name_seeds
from pixelq.run.storage import storage_errors, write_atomically

__all__ = ["FORMATS", "draw"]

FORMATS = (".png", ".svg")
_AXES = {
    "steps": "steps",
    "frames": "frames",
    "minutes": "minutes of training",
}
_ATARI_AXES = _AXES | {"steps": "steps (4 emulator frames each)", "frames": "emulator frames"}
_TITLES = {
    "train/return_per_game": "return per game (raw score, mean of the last games in training)",
    "train/return_per_life": "return per life (clipped, mean of the last lives in training)",
}
_COLOURS = ("#0b6bcb", "#d9480f", "#2b8a3e", "#9c36b5", "#c2255c", "#0c8599", "#a87400", "#5f3dc4", "#59636e")
_WIDTH, _ROW, _CAPTION_LINE = 10.0, 3.5, 0.16  # inches
_CAPTION_LETTERS = 165


def draw(numbers: Plotted, out: Path) -> None:
    """Draw a picture: a row for each game, its curves and, if there are any, its scores.

    Args:
        numbers: the data to draw.
        out: a name that ends in one of `FORMATS`; its folder is made, a file of that name is replaced.

    Raises:
        StorageError: it cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    games = list(dict.fromkeys(curve.game for curve in numbers.curves))
    lines = [line for text in numbers.captions() for line in textwrap.wrap(text, _CAPTION_LETTERS)]
    height = _ROW * len(games) + _CAPTION_LINE * len(lines) + 0.1
    # a picture of the same numbers is the same file
    with mpl.rc_context({"svg.hashsalt": "pixelq", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(_WIDTH, height), dpi=160)
        bottom = (_CAPTION_LINE * len(lines) + 0.1) / height
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        columns = {"ncols": 2, "width_ratios": (3, 2)} if numbers.scores else {"ncols": 1}
        axes = figure.subplots(len(games), squeeze=False, **columns)
        for game, row in zip(games, axes, strict=True):
            _draw_curves(row[0], numbers, game)
            if numbers.scores:
                _draw_scores(row[1], numbers, game)
        figure.text(0.01, bottom - 0.03 / height, "\n".join(lines), va="top", fontsize=7, color="#444444")
        picture = io.BytesIO()
        metadata = {"Date": None} if out.suffix == ".svg" else {}
        figure.savefig(picture, format=out.suffix[1:], metadata=metadata)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, picture.getvalue())


def _colour(numbers: Plotted, label: str) -> str:
    return _COLOURS[[curve.label for curve in numbers.curves].index(label) % len(_COLOURS)]


def _draw_curves(axes: Any, numbers: Plotted, game: str) -> None:
    for curve in numbers.curves:
        if curve.game == game:
            colour = _colour(numbers, curve.label)
            label = f"{curve.label} ({name_seeds(curve.seeds)})"
            axes.plot(curve.x, curve.mean, color=colour, linewidth=1.6, label=label)
            if len(curve.seeds) > 1:
                axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.set_title(game)
    axes.set_xlabel(_AXES[numbers.axis] if game_kind(game) != "atari" else _ATARI_AXES[numbers.axis])
    axes.set_ylabel("\n".join(textwrap.wrap(_TITLES.get(numbers.metric, numbers.metric), 40)))
    axes.ticklabel_format(axis="x", style="plain")
    axes.xaxis.set_major_formatter(_short)
    axes.grid(alpha=0.25)
    if numbers.metric == "train/return_per_game":
        _draw_references(axes, game, upright=False)
    axes.legend(loc="upper left", frameon=False)


def _draw_scores(axes: Any, numbers: Plotted, game: str) -> None:
    scores = [score for score in numbers.scores if score.game == game]
    for row, score in enumerate(scores):
        colour = _colour(numbers, score.label)
        for offset, value, interval, marker in (
            (-0.12, score.mean, score.mean_ci95, "o"),
            (0.12, score.iqm, score.iqm_ci95, "D"),
        ):
            axes.plot(interval, [row + offset] * 2, color=colour, linewidth=2, solid_capstyle="butt", alpha=0.6)
            axes.plot([value], [row + offset], marker, color=colour, markersize=5)
    names = [f"{s.label}\n{s.protocol}, {name_seeds(s.seeds)}, {s.games} games" for s in scores]
    axes.set_yticks(range(len(scores)), names, fontsize=8)
    axes.set_ylim(max(1, len(scores)) - 0.5, -0.5)
    axes.set_xlabel("raw score: mean ●, IQM ◆, 95% intervals")
    axes.grid(axis="x", alpha=0.25)
    if scores:
        _draw_references(axes, game, upright=True)


def _draw_references(axes: Any, game: str, upright: bool) -> None:
    """Dashed lines where random and human play are, unless that is so far off that nothing else could be seen."""
    if game not in REFERENCE:
        return
    low, high = axes.get_xlim() if upright else axes.get_ylim()
    for name, value, colour in zip(("random", "human"), REFERENCE[game], ("#999999", "#333333"), strict=True):
        if not low - (high - low) <= value <= high + (high - low):
            continue
        line = {"color": colour, "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 0}
        text = {"color": colour, "fontsize": 7}
        if upright:
            axes.axvline(value, **line)
            place = axes.get_xaxis_transform()
            side = "left" if value < sum(axes.get_xlim()) / 2 else "right"  # towards the middle, where there is room
            axes.text(value, 0.985, f"{name} ", transform=place, rotation=90, va="top", ha=side, **text)
        else:
            axes.axhline(value, **line)
            axes.text(0.995, value, name, transform=axes.get_yaxis_transform(), va="bottom", ha="right", **text)


def _short(value: float, position: int | None) -> str:
    """A number beside an axis: 200k, 1.5M."""
    del position
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and unit == "M"):
            return f"{value / size:g}{unit}"
    return f"{value:g}"
