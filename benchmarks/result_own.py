"""The table of games that are not Atari's: a trained agent of each beside random play."""

from result_cells import mean_of, number
from result_data import curves, read

__all__ = ["STUDY", "other_games"]

STUDY = "own-games"
HEAD = ["game", "command", "steps", "minutes", "random play (95% interval)", "agent (95% interval)"]
_SMALL = 2  # scores below it have two digits


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
        played = random.get(game), scores.get((who, game))
        small = all(abs(float(play["mean"])) < _SMALL for play in played if play)
        rows.append([*cells, *(mean_of(play, 2 if small else 1) for play in played)])
    return HEAD, rows
