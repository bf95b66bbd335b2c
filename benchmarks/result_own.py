"""The table of games that are not Atari's: a trained agent of each beside random play."""

from result_cells import NONE, number
from result_data import curves, read

__all__ = ["STUDY", "other_games"]

STUDY = "own-games"
HEAD = ["game", "command", "steps", "minutes", "random play (95% interval)", "agent (95% interval)"]


def other_games() -> tuple[list[str], list[list[str]]]:
    """Head and rows: each run's command, steps and minutes, and the mean scores of random play and of its agent."""
    random = {row["game"]: row for row in read("random")}
    scores = {(row["agent"], row["game"]): row for row in read("scores")}
    rows = []
    for row in read("runs"):
        if row["study"] != STUDY:
            continue
        end = curves(STUDY)[row["run"]]
        who, game = row["run"].removesuffix(f"-{row['game']}-s{row['seed']}"), row["game"]
        cells = [game, f"`{row['command']}`", number(end["step"][-1]), number(end["seconds"][-1] / 60)]
        rows.append([*cells, _score(random.get(game)), _score(scores.get((who, game)))])
    return HEAD, rows


def _score(row: dict[str, str] | None) -> str:
    if row is None:
        return NONE
    digits = 2 if abs(float(row["mean"])) < 2 else 1
    low, high = (number(float(row[end]), digits) for end in ("low", "high"))
    return f"{number(float(row['mean']), digits)} ({low} – {high})"
