"""Pictures of the pages about results, drawn from curves under `results/`."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pixelq.presets import PRESETS
from result_data import Curve, chain, curves, read
from result_family import GAMES, family_runs
from result_games import STUDY as GAMES_STUDY
from result_own import STUDY

__all__ = ["PICTURES"]

_RETURN = "return per game, mean of the last 100 in training"
_UNITS = {"seconds": ("minutes of training", 60), "step": ("thousand steps, 4 frames each", 1000)}


def _axes(columns: int = 1, height: float = 3.4) -> tuple[plt.Figure, list[Axes]]:
    figure, axes = plt.subplots(1, columns, figsize=(8, height), dpi=110, squeeze=False)
    for axis in axes[0]:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def _line(axis: Axes, curve: Curve, x: str, label: str = "", **style: object) -> None:
    unit, size = _UNITS[x]
    axis.plot(curve[x] / size, curve["return_per_game"], label=label, **style)
    axis.set_xlabel(unit)
    axis.set_ylim(bottom=0)


def _save(figure: plt.Figure, out: Path) -> None:
    figure.tight_layout()
    figure.savefig(out, metadata={"Software": None})
    plt.close(figure)


def fast(out: Path) -> None:
    """Seeds of the default recipe on Breakout against minutes and steps."""
    figure, axes = _axes(2)
    for axis, x in zip(axes, _UNITS, strict=True):
        for name, curve in curves(GAMES_STUDY).items():
            if name.startswith("fast-breakout-s"):
                _line(axis, curve, x, f"seed {name.removeprefix('fast-breakout-s')}", linewidth=1.2)
        axis.axhline(40, color="grey", linewidth=0.8, linestyle="--")
    axes[0].set_ylabel(_RETURN, fontsize=8)
    axes[1].legend(fontsize=7)
    _save(figure, out)


def shipped(out: Path) -> None:
    """The six runs of the agent that ships, as one curve."""
    figure, (axis,) = _axes()
    curve = chain("shipped", "+".join(f"pqn-{run}" for run in range(1, 7)))
    axis.plot(curve["step"] / 1e6, curve["return_per_game"], linewidth=1)
    axis.set_xlabel("million steps, 4 frames each")
    axis.set_ylabel(_RETURN, fontsize=8)
    _save(figure, out)


def keras_example(out: Path) -> None:
    """keras-example on two cores and on a GPU."""
    figure, axes = _axes(2)
    for axis, (name, title) in zip(axes, (("cpu-s1", "2 CPU cores"), ("h200-s1", "H200, 128 games")), strict=True):
        _line(axis, curves("keras-example")[name], "seconds")
        axis.set_title(title, fontsize=9)
    axes[0].set_ylabel(_RETURN, fontsize=8)
    _save(figure, out)


def precision(out: Path) -> None:
    """Three seeds of each precision: mean, and the band between lowest and highest."""
    figure, (axis,) = _axes()
    steps = np.arange(10_000, 500_001, 5_000)
    for kind, colour in (("bfloat16", "C0"), ("float32", "C1")):
        found = [curve for name, curve in curves("precision").items() if name.startswith(f"{kind}-decay")]
        returns = np.array([np.interp(steps, curve["step"], curve["return_per_game"]) for curve in found])
        axis.plot(steps / 1000, returns.mean(0), color=colour, label=kind)
        axis.fill_between(steps / 1000, returns.min(0), returns.max(0), color=colour, alpha=0.2, linewidth=0)
    axis.set_xlabel(_UNITS["step"][0])
    axis.set_ylabel(_RETURN, fontsize=8)
    axis.legend(fontsize=8)
    _save(figure, out)


def signals(out: Path) -> None:
    """What a run shows while it learns: return, ε, mean Q and loss."""
    figure, axes = plt.subplots(2, 2, figsize=(8, 4.6), dpi=110)
    curve = curves(GAMES_STUDY)["fast-breakout-s1"]
    shown = (("return_per_game", "return per game"), ("epsilon", "ε"), ("q_mean", "mean Q"), ("loss", "loss"))
    for axis, (name, title) in zip(axes.flat, shown, strict=True):
        axis.plot(curve["step"] / 1000, curve[name])
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    for axis in axes[1]:
        axis.set_xlabel(_UNITS["step"][0], fontsize=8)
    _save(figure, out)


def own_games(out: Path) -> None:
    """Games that are not Atari's: each run's return, and random play as a dashed line."""
    random = {row["game"]: float(row["mean"]) for row in read("random")}
    runs = [row for row in read("runs") if row["study"] == STUDY]
    figure, axes = _axes(len(runs), 2.5)
    for axis, run in zip(axes, runs, strict=True):
        curve = curves(STUDY)[run["run"]]
        axis.plot(curve["seconds"] / 60, curve["return_per_game"])
        axis.axhline(random[run["game"]], color="grey", linewidth=0.8, linestyle="--")
        axis.set_title(run["game"].rpartition(":")[2], fontsize=8)
        axis.set_xlabel("minutes", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("return per game", fontsize=8)
    _save(figure, out)


def family(out: Path) -> None:
    """Every preset at equal steps: a row for each game played, or for all, against steps and against minutes."""
    games = [game for game in GAMES if any(any(family_runs(preset, game)) for preset in PRESETS)] or GAMES
    figure, axes = plt.subplots(len(games), 2, figsize=(8, 2.8 * len(games)), dpi=110, squeeze=False)
    colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    shown: dict[str, Line2D] = {}
    for row, game in zip(axes, games, strict=True):
        for axis, x in zip(row, ("step", "seconds"), strict=True):
            size = _UNITS[x][1]
            for preset, colour in zip(PRESETS, colours, strict=False):
                for _, curve in family_runs(preset, game):
                    (line,) = axis.plot(curve[x] / size, curve["return_per_game"], color=colour, linewidth=1.2)
                    shown.setdefault(preset, line)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"{game}: return per game", fontsize=8)
    for axis, x in zip(axes[-1], ("step", "seconds"), strict=True):
        axis.set_xlabel(_UNITS[x][0])
    figure.tight_layout(rect=(0, 0, 0.82, 1))
    figure.legend(list(shown.values()), list(shown), loc="center right", fontsize=8)
    figure.savefig(out, metadata={"Software": None})
    plt.close(figure)


PICTURES: dict[str, Callable[[Path], None]] = {
    "fast.png": fast,
    "shipped.png": shipped,
    "keras-example.png": keras_example,
    "precision.png": precision,
    "signals.png": signals,
    "own-games.png": own_games,
    "family.png": family,
}
