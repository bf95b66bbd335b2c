"""A report as text: Markdown for people, CSV for programs."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pixelq.reports.statistics import Estimate

if TYPE_CHECKING:
    from pixelq.reports.report import Report

__all__ = ["as_csv", "as_markdown"]


def as_csv(report: "Report") -> str:
    """Every run's score, a line each.

    Args:
        report: the numbers.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("recipe", "game", "seed", "score"))
    for game in report.games:
        rows.writerows(
            (game.recipe, game.game, seed, score) for seed, score in zip(game.seeds, game.scores, strict=True)
        )
    return text.getvalue()


def as_markdown(report: "Report", pictures: Sequence[str]) -> str:
    """The report's tables and notes.

    Args:
        report: the numbers.
        pictures: files beside it.
    """
    lines = ["# Report", "", f"Score: {report.measure}. Intervals: 95%, stratified bootstrap over seeds.", ""]
    lines += ["| game | recipe | seeds | score of each | mean | 95% interval | human-normalised |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for game in sorted(report.games, key=lambda game: game.game):
        scores = ", ".join(f"{score:.2f}" for score in game.scores)
        seeds = ", ".join(map(str, game.seeds))
        normalised = "–" if game.human_normalised is None else f"{game.human_normalised:.3f}"
        low, high = (f"{end:.2f}" for end in game.mean[1:])
        interval = f"{low} – {high}" if len(game.seeds) > 1 else "one seed"
        lines += [
            f"| {game.game} | {game.recipe} | {seeds} | {scores} | {game.mean.value:.2f} | {interval} | {normalised} |"
        ]
    if report.aggregates:
        lines += ["", "## Over games", "", "| recipe | games | runs | IQM, human-normalised | 95% interval |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {one.recipe} | {len(one.games)} | {one.runs} | {_cells(one.iqm)} |"
            for one in sorted(report.aggregates, key=lambda one: -one.iqm.value)
        ]
    if report.improvements:
        lines += ["", "## Probability of improvement", "", "That a run of X beats a run of Y on the same game."]
        lines += ["", "| X | Y | games | P(X > Y) | 95% interval |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {one.recipe} | {one.other} | {len(one.games)} | {_cells(one.probability)} |"
            for one in report.improvements
        ]
    lines += [
        line for picture in pictures for line in ("", f"![Performance profiles and IQM over training]({picture})")
    ]
    lines += ["", *(f"- {note}" for note in report.notes)] if report.notes else []
    return "\n".join(lines) + "\n"


def _cells(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} | {estimate.low:.3f} – {estimate.high:.3f}"
