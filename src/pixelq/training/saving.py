"""Writes a run's metrics and checkpoints; what happens when the disk is full or learning diverges."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from pixelq.config import PQNConfig
from pixelq.errors import PixelqError
from pixelq.run.checkpoint import CheckpointStore
from pixelq.run.metrics import MetricsLog
from pixelq.run.storage import StorageError
from pixelq.training.parts import Parts
from pixelq.training.state import save_parts

__all__ = ["DivergedError", "Saver"]


class DivergedError(PixelqError):
    """The loss or the weights are no longer numbers."""

    exit_status = 1  # the input was fine


class Saver:
    """Writes the metrics and the checkpoints of one process's share of a run.

    If the disk is full, read-only or failing, training stops; earlier checkpoints stay intact. Or, if the
    config says `keep_going`, it continues and tries the next checkpoint as usual. Lines of metrics
    that could not be written wait in memory, some hundred bytes each, and no checkpoint is written before they are: a
    checkpoint notes how many bytes of metrics belong to it, so a run resumed from it has all of them. Nothing is lost
    but the work since the last checkpoint, should the process end before the disk takes writes again.

    Args:
        parts: the run.
        log: its metrics.
        store: its checkpoints.
        chunks: replay chunks on disk.
        say: tells a person one line.
    """

    def __init__(
        self,
        parts: Parts,
        log: MetricsLog,
        store: CheckpointStore,
        chunks: list[tuple[int, int]],
        say: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._log = log
        self._store = store
        self._chunks = chunks
        self._say = say
        self.saved_step = parts.step  # a run begins with a checkpoint, or from one
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._checkpoint_missing = False

    def write_metrics(self, record: Mapping[str, Any]) -> None:
        """Write a line of metrics, after those that wait.

        Raises:
            StorageError: the disk takes no more, and the run is not to keep going.
        """
        waited = len(self._waiting)
        self._waiting.append(record)
        try:
            self._write_waiting()
        except StorageError as error:
            if not self._parts.config.keep_going:
                raise self._stopping(error) from error
            if not waited:
                self._say(f"{error}; training continues, the metrics wait in memory")
        else:
            if waited:
                self._say(f"the waiting metrics are written, {waited} lines")

    def save(self, last: bool) -> None:
        """Write a checkpoint.

        Args:
            last: there will be no other one to make up for it, so that a failure is an error in any case.

        Raises:
            DivergedError: the learner's state holds NaN or infinity; a checkpoint of it would be useless.
            StorageError: the disk failed, and `keep_going` is not set.
        """
        self.check_learner()
        step = self._parts.step
        try:
            self._write_waiting()
            self._chunks = save_parts(self._store, self._parts, self._chunks, self._log.offset())
        except StorageError as error:
            if last or not self._parts.config.keep_going:
                raise self._stopping(error) from error
            self._checkpoint_missing = True
            self._say(f"{error}; training continues, the next checkpoint is tried again, {self._last_good()}")
        else:
            if self._checkpoint_missing:
                self._say(f"the disk takes checkpoints again: saved at step {step:,}")
            self._checkpoint_missing = False
            self.saved_step = step

    def check_learner(self) -> None:
        """Make sure that loss, weights and all that the learner saves are numbers; waits for the device.

        Raises:
            DivergedError: they are not; tells the step, the batch and the last good checkpoint.
        """
        trouble = self._parts.learner.trouble()
        if trouble is None:
            return
        ago, figures = trouble
        raise DivergedError(
            f"learning diverged at step {self._update_step(ago):,}, update {self._parts.learner.updates - ago:,}; "
            f"{figures}; training stops, {self._last_good()}; a new run can begin with its agent (--init) and a lower "
            "--optimiser.learning-rate"
        )

    def _update_step(self, ago: int) -> int:
        """The step for which an update was done, the last being 0 updates ago."""
        config = self._parts.config
        if isinstance(config.algo, PQNConfig):
            rounds = ago // (config.algo.epochs * config.algo.minibatches)
            return self._parts.step - rounds * config.algo.rollout_steps * config.envs
        learned = self._parts.step - config.envs  # the last step of the games was not learned from yet
        return max(0, (learned // config.replay.train_period - ago) * config.replay.train_period)

    def _write_waiting(self) -> None:
        while self._waiting:
            self._log.write(self._waiting[0])
            self._waiting.popleft()

    def _stopping(self, error: StorageError) -> StorageError:
        return StorageError(f"{error}; training stops at step {self._parts.step:,}, {self._last_good()}")

    def _last_good(self) -> str:
        return f"the last good checkpoint is {self._store.newest_good}"
