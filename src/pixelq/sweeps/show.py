"""The display of a sweep: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self, TextIO, cast

from pixelq.sweeps.state import RunState
from pixelq.training.output import Output, can_draw

__all__ = ["Line", "Show", "make_show"]

_PLAIN_SECONDS = 60.0  # between two lines where there is no terminal
_ORDER = ("training", "failed", "stopped", "waiting", "finished", "pruned")
_MOST_LINES = 40


class Line(NamedTuple):
    """A run in the table."""

    name: str
    status: str
    total_steps: int
    state: RunState

    def figures(self) -> tuple[str, ...]:
        """Run, status, step, return, minutes left."""
        state = self.state
        left = "–"
        if self.status == "training" and state.steps_per_second:
            left = f"{max(0, self.total_steps - state.step) / state.steps_per_second / 60:.1f}"
        score = "–" if state.return_per_game is None else f"{state.return_per_game:.2f}"
        return self.name, self.status, f"{state.step:,}", score, left


class Show(Protocol):
    """Follows a sweep; a context manager."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""

    def note(self, text: str) -> None:
        """Say something once."""

    def table(self, lines: Sequence[Line]) -> None:
        """The present state of every run."""


class _Plain:
    def __init__(self) -> None:
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def note(self, text: str) -> None:
        print(text, file=Output(), flush=True)

    def table(self, lines: Sequence[Line]) -> None:
        if time.monotonic() - self._said < _PLAIN_SECONDS:
            return
        self._said = time.monotonic()
        done = sum(line.status == "finished" for line in lines)
        training = (
            f"{name} step {step} return {score}" for name, status, step, score, _ in _figures(lines, "training")
        )
        print(f"{done} of {len(lines)} finished; {'; '.join(training)}", file=Output(), flush=True)


def _figures(lines: Sequence[Line], status: str) -> list[tuple[str, ...]]:
    return [line.figures() for line in lines if line.status == status]


class _Live:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=cast(TextIO, Output())), refresh_per_second=2)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def table(self, lines: Sequence[Line]) -> None:
        self._live.update(_table(lines))


def _table(lines: Sequence[Line]) -> Any:
    from rich.table import Table

    done = sum(line.status == "finished" for line in lines)
    table = Table("run", "status", title=f"{done} of {len(lines)} runs finished", title_justify="left")
    for name in ("step", "return/game", "minutes left"):
        table.add_column(name, justify="right")
    ordered = sorted(lines, key=lambda line: _ORDER.index(line.status))
    for line in ordered[:_MOST_LINES]:
        table.add_row(*line.figures())
    if len(ordered) > _MOST_LINES:
        table.add_row(f"and {len(ordered) - _MOST_LINES} more", "", "", "", "")
    return table


def make_show() -> Show:
    """The live table if standard output is a terminal that moves its cursor, else plain lines."""
    return _Live() if can_draw(sys.stdout) else _Plain()
