"""What surrounds a training loop: metrics, checkpoints, videos, messages, and when to stop."""

from collections.abc import Sequence
from typing import Any

from pixelq.envs.episodes import Episode
from pixelq.training.callbacks import Callbacks
from pixelq.training.health import HealthWatch
from pixelq.training.parts import Parts
from pixelq.training.progress import Progress
from pixelq.training.saving import Saver
from pixelq.training.stopping import Clock, Stop
from pixelq.training.videos import Videos

__all__ = ["Session", "crossed"]


def crossed(step: int, before: int, period: int) -> bool:
    """Whether (before, step] contains a multiple of `period`."""
    return step // period > before // period


class Session:
    """The surroundings of one process's share of a run.

    Args:
        parts: the run.
        saver: its metrics and checkpoints.
        videos: its recordings.
        progress: the display.
        stop: requests to stop; None: none.
        callbacks: called at their hooks; None: none.
    """

    def __init__(
        self,
        parts: Parts,
        saver: Saver,
        videos: Videos,
        progress: Progress,
        stop: Stop | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        self._parts = parts
        self._saver = saver
        self._videos = videos
        self._progress = progress
        self._health = HealthWatch(parts)
        self.clock = Clock()
        self._stop = stop or Stop()
        self._callbacks = callbacks or Callbacks()
        self._answered = False
        self._tick_seconds, self._tick_step = parts.seconds, parts.step
        self._saved_seconds = parts.seconds  # a run begins with a checkpoint, or from one
        self._logged_step = -1

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to stop."""
        return self._stop.asked

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
        self.clock.tick()
        self._progress.advance(parts.step)
        if finished:
            self._check_solved()
            self._videos.after_episodes(parts, self._episodes())
        if self._callbacks.hear_steps:
            self._callbacks.steps(finished)
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
        self._answer()
        if not parts.finished:  # interrupted
            self._save(last=True)
            return
        if self._logged_step != parts.step:
            self._write_metrics()
        self._save(last=True)
        if self._stop.asked:
            return  # do not wait for a video
        if self._videos.records:
            self._progress.note("recording a game of the final agent; Ctrl-C skips it")
        try:
            with self._stop.at_once():
                video = self._videos.final(parts, self._episodes())
        except KeyboardInterrupt:
            self._progress.note("interrupted: no video of the final agent, all else is saved")
        else:
            if video:
                self._progress.note(f"the final agent: {video}")

    def _answer(self) -> None:
        """Tell the user how the run reacts to a request to stop."""
        line = self._stop.answer(self._saver.saved_step)
        if line is not None and not self._answered:
            self._answered = True
            self._progress.note(line)

    def _save(self, last: bool) -> None:
        self._update_seconds()
        self._saver.save(last)
        self._update_seconds()
        self._saved_seconds = self._parts.seconds
        self._callbacks.checkpoint()

    def _episodes(self) -> int:
        tracker = self._parts.tracker
        return tracker.lives if self._parts.config.episode_unit == "life" else tracker.games

    def _check_solved(self) -> None:
        parts, config, tracker = self._parts, self._parts.config, self._parts.tracker
        if config.stop_on == "none" or tracker.in_mean(config.episode_unit) < config.window_episodes:
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
        self._parts.seconds += self.clock.lap()

    def _write_metrics(self) -> None:
        parts, tracker = self._parts, self._parts.tracker
        self._update_seconds()
        learned = parts.learner.fetch_metrics()
        spent = parts.seconds - self._tick_seconds
        health, warning = self._health.look()
        record: dict[str, Any] = {
            "step": parts.step,
            "frames": parts.envs.spec.frames_per_step * parts.step,
            "games": tracker.games,
            "lives": tracker.lives,
            "seconds": round(parts.seconds, 3),
            "train/return_per_game": tracker.mean_per_game(),
            "train/return_per_life": tracker.mean_per_life(),
            "train/epsilon": parts.epsilon,
            "loss/td": learned.loss,
            "q/mean": learned.q_mean,
            **health,
            "health/gradient_norm": learned.gradient_norm,
            "perf/steps_per_second": round((parts.step - self._tick_step) / spent, 1) if spent > 0 else None,
        }
        self._tick_seconds, self._tick_step = parts.seconds, parts.step
        self._logged_step = parts.step
        self._saver.write_metrics(record)
        self._progress.metrics(record)
        if warning:
            self._progress.note(warning)
        self._saver.check_learner()
        self._callbacks.log(record)
