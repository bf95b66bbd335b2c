"""The table of all presets at equal steps, and each preset's rows for its own page."""

from collections.abc import Iterator

from family import STEPS
from pixelq.presets import PRESETS
from result_cells import NONE, number, processor, table
from result_data import Curve, curves, read

__all__ = ["GAMES", "STUDY", "family", "family_rows", "family_runs"]

STUDY = "family"
GAMES = ("breakout", "pong")


def family_runs(preset: str, game: str) -> Iterator[tuple[dict[str, str], Curve]]:
    """Recorded runs of a preset on a game, by seed, with their curves."""
    recorded = [row for row in read("runs") if (row["study"], row["preset"], row["game"]) == (STUDY, preset, game)]
    for row in sorted(recorded, key=lambda row: int(row["seed"])):
        yield row, curves(STUDY)[row["run"]]


def family() -> str:
    """The return of the last 100 training games, and the minutes, of each preset on each game; `·` separates seeds."""
    rows = []
    for preset in PRESETS:
        cells, machines = [], dict[str, None]()
        for game in GAMES:
            found = list(family_runs(preset, game))
            cells.append(" · ".join(_return(curve) for _, curve in found) or NONE)
            cells.append(" · ".join(f"{curve['seconds'][-1] / 60:.0f}" for _, curve in found) or NONE)
            machines |= dict.fromkeys(processor(row["machine"]) for row, _ in found)
        rows.append([f"`{preset}`", *cells, "; ".join(machines) or NONE])
    return table(["preset", "Breakout", "minutes", "Pong", "minutes", "machine"], rows)


def family_rows(preset: str) -> list[list[str]]:
    """A preset's rows for its own page: preset, game, steps, protocol and games, mean, interval, machine, commit."""
    link = f"{preset}, [short](../results/algorithms.md#equal-steps)"
    rows = []
    for game in GAMES:
        for row, curve in family_runs(preset, game):
            cells = [link, f"{game}, seed {row['seed']}", number(curve["step"][-1]), "training, the last 100"]
            cells.append(f"**{number(curve['return_per_game'][-1], 1)}**")
            rows.append([*cells, NONE, processor(row["machine"]), row["commit"]])
    return rows


def _return(curve: Curve) -> str:
    steps, end = curve["step"][-1], number(curve["return_per_game"][-1], 1)
    return end if steps >= STEPS else f"{end} at {number(steps)}"
