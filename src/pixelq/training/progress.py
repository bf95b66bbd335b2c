"""What a person sees of a run: a live bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from pixelq.config import TrainConfig

__all__ = ["PlainProgress", "Progress", "RichProgress", "make_progress"]


class Progress(Protocol):
    """Follows a run; a context manager, so that the terminal is left as it was."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def advance(self, step: int) -> None:
        """The run has come to `step`; called after every tick of the games, so it must be quick."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        """A line of metrics was written."""

    def note(self, text: str) -> None:
        """Say something once."""

    def restoring(self, done: int, total: int) -> None:
        """So many steps of the saved games are replayed."""


def _figure(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _summary(record: Mapping[str, Any], total_steps: int) -> dict[str, str]:
    speed = record["perf/steps_per_second"]
    left = (total_steps - record["step"]) / speed if speed else None
    return {
        "steps/s": _figure(speed, ".0f"),
        "ETA": _duration(left),
        "return/game": _figure(record["train/return_per_game"], ".2f"),
        "return/life": _figure(record["train/return_per_life"], ".2f"),
        "ε": _figure(record["train/epsilon"], ".3f"),
        "loss": _figure(record["loss/td"], ".4f"),
        "Q": _figure(record["q/mean"], ".3f"),
    }


class PlainProgress:
    """A line a log tick, for files and pipes."""

    def __init__(self, config: TrainConfig) -> None:
        self._total = config.total_steps
        self._quarter = 0

    def __enter__(self) -> Self:
        """Nothing to set up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def advance(self, step: int) -> None:
        """Lines come with the metrics."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Print the record's figures."""
        figures = "  ".join(f"{name} {value}" for name, value in _summary(record, self._total).items())
        share = 100 * record["step"] / self._total
        print(f"step {record['step']:,} ({share:.1f}%)  {figures}", flush=True)

    def note(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    def restoring(self, done: int, total: int) -> None:
        """Print at every quarter."""
        quarter = 4 * done // max(total, 1)
        if quarter != self._quarter:
            self._quarter = quarter
            print(f"restoring the games: {25 * quarter}%", flush=True)


class RichProgress:
    """A live bar with the latest figures beneath it."""

    def __init__(self, config: TrainConfig) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._config = config
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("\n  {task.fields[figures]}"),
            console=Console(),
            refresh_per_second=2,
            expand=True,
        )
        self._task = self._bar.add_task(config.game, total=config.total_steps, figures="…")
        self._restoring: Any = None

    def __enter__(self) -> Self:
        """Start the display."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and leave its last state on the screen."""
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Renew the figures."""
        figures = "  ".join(
            f"[dim]{name}[/dim] [cyan]{value}[/cyan]"
            for name, value in _summary(record, self._config.total_steps).items()
        )
        self._bar.update(self._task, completed=record["step"], figures=figures)

    def note(self, text: str) -> None:
        """Print above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def restoring(self, done: int, total: int) -> None:
        """Show a second bar while the games are replayed."""
        if self._restoring is None:
            self._restoring = self._bar.add_task("restoring the games", total=total, figures="")
        self._bar.update(self._restoring, completed=done)
        if done >= total:
            self._bar.remove_task(self._restoring)
            self._restoring = None


def make_progress(config: TrainConfig) -> Progress:
    """The live display if standard output is a terminal, else plain lines."""
    return RichProgress(config) if sys.stdout.isatty() else PlainProgress(config)
