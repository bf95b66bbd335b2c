"""A picture of runs for a terminal: dots of braille and a table."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.text import Text

from pixelq.plots.numbers import Curve, Plotted, Score, name_seeds

__all__ = ["COLOURS", "chart_lines", "legend_lines", "score_lines", "show"]

COLOURS = ("bright_blue", "yellow", "green", "magenta", "red", "cyan", "white", "bright_black")
_ROWS = 16
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille letter, by row and column
_MARGIN = 9  # letters of the numbers beside the axis


def chart_lines(numbers: Plotted, game: str, width: int) -> list[list[tuple[str, str]]]:
    """The curves of a game, each in its colour; a letter at its end says which it is.

    Args:
        numbers: the data to draw.
        game: the curves' game.
        width: letters in a line.

    Returns:
        Lines of pieces of text with the name of their colour, "" for none.
    """
    curves = [(index, curve) for index, curve in enumerate(numbers.curves) if curve.game == game]
    columns = max(20, width - _MARGIN - 3)
    x_low, x_high = _ends([curve.x for _, curve in curves])
    y_low, y_high = _ends([curve.mean for _, curve in curves])
    dots = np.zeros((_ROWS, columns), np.int64)
    owner = np.full((_ROWS, columns), -1)
    letters: dict[tuple[int, int], str] = {}
    for index, curve in curves:
        x = np.linspace(curve.x[0], curve.x[-1], 8 * columns)
        place_x = (x - x_low) / (x_high - x_low) * (2 * columns - 1)
        place_y = (y_high - np.interp(x, curve.x, curve.mean)) / (y_high - y_low) * (4 * _ROWS - 1)
        for column, row in zip(place_x.round().astype(int), place_y.round().astype(int), strict=True):
            dots[row // 4, column // 2] |= _DOTS[row % 4][column % 2]
            owner[row // 4, column // 2] = index
        letters[int(place_y[-1].round()) // 4, int(place_x[-1].round()) // 2] = _letter(index)
        owner[int(place_y[-1].round()) // 4, int(place_x[-1].round()) // 2] = index
    lines = []
    for row in range(_ROWS):
        value = y_high - (y_high - y_low) * row / (_ROWS - 1)
        side = f"{value:{_MARGIN - 1}.4g} │" if row % 5 == 0 else " " * _MARGIN + "│"
        line = [(side, "")]
        for column in range(columns):
            text = letters.get((row, column)) or (chr(0x2800 + dots[row, column]) if dots[row, column] else " ")
            line.append((text, _colour(owner[row, column]) if owner[row, column] >= 0 else ""))
        lines.append(line)
    left, right = f"{x_low:,.4g}", f"{x_high:,.6g} {numbers.axis}"
    lines.append([(" " * _MARGIN + "└" + "─" * columns, "")])
    lines.append([(" " * (_MARGIN + 1) + left + right.rjust(columns - len(left)), "")])
    return lines


def legend_lines(numbers: Plotted, game: str) -> list[list[tuple[str, str]]]:
    """The meaning of each letter, and the end of its curve."""
    return [
        [(f"{_letter(index)} {curve.label}", _colour(index)), (_end(curve, numbers), "")]
        for index, curve in enumerate(numbers.curves)
        if curve.game == game
    ]


def score_lines(numbers: Plotted, game: str) -> list[str]:
    """A table of a game's scores; empty if there are none."""
    scores = [score for score in numbers.scores if score.game == game]
    if not scores:
        return []
    wide = max(len(score.label) for score in scores) + 2
    name = max(len("protocol"), *(len(score.protocol) for score in scores)) + 2
    columns = f"{'seeds':>5}{'games':>7}{'mean':>10}{'95%':>18}{'IQM':>10}{'95%':>18}{'human':>8}"
    head = f"{'':<{wide}}{'protocol':<{name}}{columns}"
    return [head, *(f"{score.label:<{wide}}{_row(score, name)}" for score in scores)]


def show(numbers: Plotted) -> None:
    """Print a picture on standard output, as wide as the terminal.

    Args:
        numbers: the data to draw.
    """
    console = Console(highlight=False, soft_wrap=True)
    for game in dict.fromkeys(curve.game for curve in numbers.curves):
        console.print(f"{game}: {numbers.metric}")
        for line in (*chart_lines(numbers, game, min(console.width, 100)), *legend_lines(numbers, game)):
            console.print(Text.assemble(*line))
        for text in score_lines(numbers, game):
            console.print(text, markup=False)
        console.print()
    for text in numbers.captions():
        console.print(text, markup=False)


def _row(score: Score, name: int) -> str:
    human = "–" if score.human_normalised is None else f"{score.human_normalised:.3f}"
    mean, iqm = (f"{low:.2f} to {high:.2f}" for low, high in (score.mean_ci95, score.iqm_ci95))
    return (
        f"{score.protocol:<{name}}{len(score.seeds):>5}{score.games:>7}{score.mean:>10.2f}{mean:>18}"
        f"{score.iqm:>10.2f}{iqm:>18}{human:>8}"
    )


def _end(curve: Curve, numbers: Plotted) -> str:
    band = f", seeds {curve.low[-1]:.4g} to {curve.high[-1]:.4g}" if len(curve.seeds) > 1 else ""
    return f"  {name_seeds(curve.seeds)}  {curve.mean[-1]:.4g} at {curve.x[-1]:,.6g} {numbers.axis}{band}"


def _ends(values: Sequence[np.ndarray]) -> tuple[float, float]:
    low, high = float(min(value.min() for value in values)), float(max(value.max() for value in values))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _letter(index: int) -> str:
    return chr(ord("A") + index % 26)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
