"""What surrounds a training loop: metrics, checkpoints, videos, messages, and when to stop."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pixelq.actor import epsilon_at
from pixelq.config import FRAME_SKIP
from pixelq.envs.episodes import Episode
from pixelq.training.parts import Parts
from pixelq.training.progress import Progress
from pixelq.training.saving import Saver
from pixelq.training.videos import Videos

__all__ = ["Session", "crossed"]


def crossed(step: int, before: int, period: int) -> bool:
    """Whether a multiple of `period` lies in (before, step]."""
    return step // period > before // period


class Session:
    """The surroundings of one process's share of a run.

    Args:
        parts: the run.
        saver: its metrics and checkpoints.
        videos: its recordings.
        progress: what a person sees.
    """

    def __init__(self, parts: Parts, saver: Saver, videos: Videos, progress: Progress) -> None:
        self._parts = parts
        self._saver = saver
        self._videos = videos
        self._progress = progress
        self.interrupted = False
        self._clock = time.monotonic()
        self._tick_seconds, self._tick_step = parts.seconds, parts.step
        self._saved_seconds = parts.seconds  # a run begins with a checkpoint, or from one
        self._logged_step = -1

    @property
    def over(self) -> bool:
        """Whether the loop should end: solved, out of steps, or asked to stop."""
        return self.interrupted or self._parts.finished

    def after_steps(self, steps: int, finished: Sequence[Episode]) -> None:
        """Once in a while: say how it goes, record, save. Called after every step of the games, or every rollout.

        Args:
            steps: done since the last call, over all games.
            finished: games and lives that ended with them.
        """
        parts, config = self._parts, self._parts.config
        before = parts.step - steps
        self._progress.advance(parts.step)
        if finished:
            self._check_solved()
            self._videos.after_episodes(parts, self._episodes())
        if config.notebook_log and crossed(parts.step, before, config.target_period_steps):
            self._progress.note(self._notebook_line())
        if crossed(parts.step, before, config.log_every_steps):
            self._write_metrics()
        if crossed(parts.step, before, config.checkpoint_every_steps) and not self.over:
            self._update_seconds()
            if parts.seconds - self._saved_seconds >= config.checkpoint_min_seconds:
                self._save(last=False)

    def finish(self) -> None:
        """The loop has ended: last line of metrics, last checkpoint, last video."""
        parts = self._parts
        if not parts.finished:  # interrupted
            self._save(last=True)
            return
        if self._logged_step != parts.step:
            self._write_metrics()
        self._save(last=True)
        video = self._videos.final(parts, self._episodes())
        if video:
            self._progress.note(f"the final agent: {video}")

    def _save(self, last: bool) -> None:
        self._update_seconds()
        self._saver.save(last)
        self._update_seconds()
        self._saved_seconds = self._parts.seconds

    def _episodes(self) -> int:
        tracker = self._parts.tracker
        return tracker.lives if self._parts.config.episode_unit == "life" else tracker.games

    def _check_solved(self) -> None:
        parts, config, tracker = self._parts, self._parts.config, self._parts.tracker
        if config.stop_on == "none" or self._episodes() < config.window_episodes:
            return
        mean = tracker.mean_per_life() if config.stop_on == "return_per_life" else tracker.mean_per_game()
        if mean is not None and mean > config.stop_at:
            parts.solved = True
            self._progress.note(f"Solved at episode {self._episodes()}!")

    def _notebook_line(self) -> str:
        tracker = self._parts.tracker
        running = tracker.mean_per_life() or 0.0
        return f"running reward: {running:.2f} at episode {tracker.lives}, frame count {self._parts.step}"

    def _update_seconds(self) -> None:
        now = time.monotonic()
        self._parts.seconds += now - self._clock
        self._clock = now

    def _write_metrics(self) -> None:
        parts, tracker = self._parts, self._parts.tracker
        self._update_seconds()
        learned = parts.learner.fetch_metrics()
        spent = parts.seconds - self._tick_seconds
        record: dict[str, Any] = {
            "step": parts.step,
            "frames": FRAME_SKIP * parts.step,
            "games": tracker.games,
            "lives": tracker.lives,
            "seconds": round(parts.seconds, 3),
            "train/return_per_game": tracker.mean_per_game(),
            "train/return_per_life": tracker.mean_per_life(),
            "train/epsilon": epsilon_at(parts.config.exploration, parts.step),
            "loss/td": learned.loss,
            "q/mean": learned.q_mean,
            "perf/steps_per_second": round((parts.step - self._tick_step) / spent, 1) if spent > 0 else None,
        }
        self._tick_seconds, self._tick_step = parts.seconds, parts.step
        self._logged_step = parts.step
        self._saver.write_metrics(record)
        self._progress.metrics(record)
        self._saver.check_learner()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as the wish to save and stop, a second Ctrl-C as the wish to stop at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            del frame
            if self.interrupted and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.interrupted = True

        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
