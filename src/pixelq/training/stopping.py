"""Requests to stop a run, and its training time."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["SIGNALS", "Clock", "Stop", "free_signals"]

# a person's wish, the machine's, a terminal that closes, and what schedulers send before they kill
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
SIGNALS: tuple[signal.Signals, ...] = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))
_REPLACED = (signal.SIGINT, signal.SIGTERM)  # a program that handles another signal in Python keeps its handler
_DELIBERATE_SECONDS = 0.5  # two quicker Ctrl-C count as one: nobody can read the message so fast


class Stop:
    """The wish to stop, which signals bring.

    Signals that were ignored when the process started (by `nohup`) stay ignored.
    """

    def __init__(self) -> None:
        self._first: float | None = None  # when it was asked
        self._by: signal.Signals | str | None = None
        self._saves = False

    @property
    def asked(self) -> bool:
        """Whether the run should save and stop."""
        return self._by is not None

    def ask(self, by: signal.Signals | str = signal.SIGTERM) -> None:
        """Ask the run to save and stop.

        Args:
            by: the signal to act on; or the source of the request, in words.
        """
        if self._by is None:
            self._first, self._by = time.monotonic(), by

    def answer(self, saved_step: int) -> str | None:
        """The line that tells the user what happens now; None without a request.

        Args:
            saved_step: step of the newest checkpoint.
        """
        if self._by is None:
            return None
        if self._by == signal.SIGINT:
            return f"saving; Ctrl-C again loses everything after step {saved_step:,}"
        return f"saving, since {self._by if isinstance(self._by, str) else self._by.name} asks the run to stop"

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Handle the signals while the block lasts; outside the main thread this does nothing.

        Raises:
            KeyboardInterrupt: a signal came when there was nothing to save, or a second Ctrl-C.
        """
        previous: dict[signal.Signals, Any] = {}
        try:
            for number in free_signals():
                previous[number] = signal.signal(number, self._take)
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def saves_first(self) -> Iterator[None]:
        """While the block lasts a signal is a wish that the block fulfils, by saving or by cleaning up."""
        before, self._saves = self._saves, True
        try:
            yield
        finally:
            self._saves = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Everything is saved: while the block lasts a signal ends it."""
        before, self._saves = self._saves, False
        try:
            yield
        finally:
            self._saves = before

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self._first is None:
            self.ask(signal.Signals(number))
        elif self._saves and number == signal.SIGINT and now - self._first >= _DELIBERATE_SECONDS:
            raise KeyboardInterrupt
        if not self._saves:
            raise KeyboardInterrupt


def free_signals() -> list[signal.Signals]:
    """Those of `SIGNALS` that are ours to take; none outside of the main thread, which alone can."""
    return [] if threading.current_thread() is not threading.main_thread() else list(filter(_free, SIGNALS))


def _free(number: signal.Signals) -> bool:
    """Whether we may handle a signal: it is not ignored, and its present handler can be put back."""
    handler = signal.getsignal(number)
    return handler == signal.SIG_DFL or (number in _REPLACED and handler not in (signal.SIG_IGN, None))


class Clock:
    """Seconds of training, without the time that the process is suspended (Ctrl-Z)."""

    def __init__(self) -> None:
        self._lap = self._alive = time.monotonic()

    def tick(self) -> None:
        """The process is at work; called once a step of the games."""
        self._alive = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call, at first since the clock was made."""
        now = self._alive = time.monotonic()
        spent = now - self._lap
        self._lap = now
        return spent

    @contextmanager
    def stops_with_the_process(self) -> Iterator[None]:
        """During the block, notice when the process continues; leave out the time since the last tick."""
        number = getattr(signal, "SIGCONT", None)
        if number is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        previous: Callable[[int, FrameType | None], Any] | int | None = signal.getsignal(number)
        if previous is None:  # not ours, and could not be put back
            yield
            return

        def go_on(number: int, frame: FrameType | None) -> None:
            now = time.monotonic()
            self._lap += now - self._alive
            self._alive = now
            if callable(previous):
                previous(number, frame)

        signal.signal(number, go_on)
        try:
            yield
        finally:
            signal.signal(number, previous)
