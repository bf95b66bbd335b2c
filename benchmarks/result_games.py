"""The table of training returns by game."""

from statistics import median

import numpy as np

from pixelq.evaluation.scores import human_normalised
from pixelq.reports.statistics import iqm
from result_cells import NONE, mean_of, number
from result_data import curves, read

__all__ = ["STUDY", "TEN", "THREE_STEPS", "WHOLE", "training_returns"]

STUDY = "games"
THREE_STEPS = "three-steps"  # the same with the recipe as it was before
WHOLE = 700_000  # steps; a shorter run is shown, but not counted
TEN = (
    *("pong", "breakout", "space_invaders", "freeway", "qbert"),
    *("seaquest", "beam_rider", "boxing", "enduro", "ms_pacman"),
)
HEAD = ["game", "random play (95% interval)", "each seed", "median", "worst", "human-normalised mean"]


def training_returns(study: str = STUDY) -> tuple[list[str], list[list[str]]]:
    """Head and rows: the mean return of each seed's last 100 training games, beside random play; the IQM last.

    Args:
        study: the runs of one recipe.
    """
    random = {row["game"]: row for row in read("random")}
    rows, by_seed = [], list[dict[str, float]]()  # each game's human-normalised return by seed
    for game in TEN:
        runs = sorted((row for row in read("runs") if (row["study"], row["game"]) == (study, game)), key=_seed)
        ends = [curves(study)[row["run"]] for row in runs]
        cut = [f" at {end['step'][-1]:,.0f}" if end["step"][-1] < WHOLE else "" for end in ends]
        returns = [float(end["return_per_game"][-1]) for end in ends]
        whole = [value for value, short in zip(returns, cut, strict=True) if not short]
        shares = [share for value in whole if (share := human_normalised(game, value)) is not None]
        seeds = [row["seed"] for row, short in zip(runs, cut, strict=True) if not short]
        by_seed.append(dict(zip(seeds, shares, strict=True)))
        cells = [game, mean_of(random.get(game))]
        cells.append(" · ".join(number(value, 1) + short for value, short in zip(returns, cut, strict=True)) or NONE)
        cells += [number(median(whole), 1), number(min(whole), 1)] if whole else [NONE, NONE]
        rows.append([*cells, f"{np.mean(shares):.2f}" if shares else NONE])
    # games with more seeds than others would weigh more
    common = sorted(set.intersection(*(set(found) for found in by_seed)), key=int)
    total = f"**{float(iqm(np.array([found[seed] for found in by_seed for seed in common]))):.2f}**" if common else NONE
    rows.append([f"IQM of the seeds that every game has: {', '.join(common) or 'none'}", "", "", "", "", total])
    return HEAD, rows


def _seed(row: dict[str, str]) -> int:
    return int(row["seed"])
