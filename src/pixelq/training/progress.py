"""The display of a run: a live bar on a terminal, plain lines elsewhere."""

import html
import importlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TextIO, cast, get_args

from pixelq.config import TrainConfig
from pixelq.errors import PixelqError
from pixelq.training.output import Output, can_draw, in_notebook

__all__ = [
    "NotebookProgress",
    "PlainProgress",
    "Progress",
    "ProgressKind",
    "RichProgress",
    "SilentProgress",
    "follow_restoring",
    "make_progress",
]

ProgressKind = Literal["auto", "bar", "lines", "none"]
PROGRESS_KINDS: tuple[ProgressKind, ...] = get_args(ProgressKind)
_DRAWN_SECONDS = 0.5  # between two pictures of a bar in a notebook
_LONG_SECONDS = 10  # from which on restoring exactly may not be worth the wait


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
    learning = record["loss/td"] is not None  # before that a run is several times as fast
    left = max(0, total_steps - record["step"]) / speed if speed and learning else None  # a rollout may pass the end
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
        _print(f"step {record['step']:,} ({share:.1f}%)  {figures}")

    def note(self, text: str) -> None:
        """Print it."""
        _print(text)

    def restoring(self, done: int, total: int) -> None:
        """Print at every quarter."""
        quarter = 4 * done // max(total, 1)
        if quarter != self._quarter:
            self._quarter = quarter
            _print(f"restoring the games: {25 * quarter}%")


def _print(text: str) -> None:
    """Print a line; an output that takes none is no reason to end a run."""
    print(text, file=Output(), flush=True)


class SilentProgress:
    """Nothing at all."""

    def __enter__(self) -> Self:
        """Nothing to set up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def advance(self, step: int) -> None:
        """Not shown."""

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Not shown."""

    def note(self, text: str) -> None:
        """Not said."""

    def restoring(self, done: int, total: int) -> None:
        """Not shown."""


class NotebookProgress(PlainProgress):
    """A bar with the latest figures, as HTML that is renewed in place; notes are lines."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self._page = importlib.import_module("IPython.display")
        self._title = f"{config.preset} on {config.game}"
        self._figures: dict[str, str] = {}
        self._step = 0
        self._drawn = -math.inf
        self._handle: Any = None

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the page."""
        if self._handle is not None:
            self._draw()

    def advance(self, step: int) -> None:
        """Move the bar, a few times a second."""
        self._step = step
        if time.monotonic() - self._drawn >= _DRAWN_SECONDS:
            self._draw()

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Renew the figures."""
        self._figures = _summary(record, self._total)
        self.advance(record["step"])

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        figures = " &nbsp; ".join(f"{html.escape(name)} <b>{value}</b>" for name, value in self._figures.items())
        share = 100 * self._step / self._total
        page = self._page.HTML(
            f'<div>{html.escape(self._title)} <progress value="{self._step}" max="{self._total}"></progress> '
            f"{self._step:,} of {self._total:,} steps ({share:.1f}%)<br>{figures}</div>"
        )
        if self._handle is None:
            self._handle = self._page.display(page, display_id=True)
        else:
            self._handle.update(page)


class RichProgress:
    """A live bar with the latest figures beneath it."""

    def __init__(self, config: TrainConfig) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        self._total = config.total_steps
        columns = (BarColumn(bar_width=None), TaskProgressColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(TextColumn("[bold]{task.description}"), *columns, expand=True)
        self._task = self._bar.add_task(f"{config.preset} {config.game}", total=config.total_steps)
        self._figures = Text("  the figures come with the first line of metrics", style="dim")
        self._live = Live(
            Group(self._bar, self._figures), console=Console(file=cast(TextIO, Output())), refresh_per_second=2
        )
        self._restoring: Any = None

    def __enter__(self) -> Self:
        """Start the display."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and leave its last state on the screen."""
        self._live.stop()

    def advance(self, step: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Renew the figures."""
        self._bar.update(self._task, completed=record["step"])
        self._figures.truncate(0)
        for name, value in _summary(record, self._total).items():
            self._figures.append(f"  {name} ", style="dim").append(value, style="cyan")

    def note(self, text: str) -> None:
        """Print above the bar."""
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def restoring(self, done: int, total: int) -> None:
        """Show a second bar while the games are replayed."""
        if self._restoring is None:
            self._restoring = self._bar.add_task("restoring the games", total=total)
        self._bar.update(self._restoring, completed=done)
        if done >= total:
            self._bar.remove_task(self._restoring)
            self._restoring = None


def make_progress(config: TrainConfig, kind: Progress | ProgressKind = "auto") -> Progress:
    """What shows a run.

    Args:
        config: the run's settings.
        kind: "bar", "lines", "none"; "auto": a bar in a notebook and on a terminal that moves its cursor, else lines.
            What shows a run already is given back.

    Raises:
        PixelqError: there is no such kind.
    """
    if not isinstance(kind, str):
        return kind
    if kind not in PROGRESS_KINDS:
        raise PixelqError(f'progress is "{kind}": must be {", ".join(PROGRESS_KINDS[:-1])} or {PROGRESS_KINDS[-1]}')
    if kind in ("auto", "bar") and in_notebook():
        return NotebookProgress(config)
    if kind == "bar" or (kind == "auto" and can_draw(sys.stdout)):
        return RichProgress(config)
    return SilentProgress() if kind == "none" else PlainProgress(config)


def follow_restoring(show: Progress) -> Callable[[int, int], None]:
    """Show how far the games are replayed, and say, as soon as a few steps are timed, how long it will take.

    Args:
        show: where to.

    Returns:
        What takes the steps replayed and to replay, at first 0.
    """
    started = time.monotonic()
    told = False

    def follow(done: int, total: int) -> None:
        nonlocal started, told
        show.restoring(done, total)
        if not done:
            started = time.monotonic()
        elif done < total and not told:
            told = True
            seconds = (time.monotonic() - started) / done * total
            hint = (
                "; --fresh-games skips it, and the run is then not bit for bit the same"
                if seconds >= _LONG_SECONDS
                else ""
            )
            show.note(f"replaying the games: {total:,} steps, about {seconds:.0f} s{hint}")

    return follow
