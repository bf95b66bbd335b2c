"""What a tracker is asked to do, and the options of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = ["TrackOptions", "Tracker", "TrackerName"]

TrackerName = Literal["wandb", "mlflow", "trackio", "tensorboard"]


@dataclass(frozen=True)
class TrackOptions:
    """How a run is called by its trackers."""

    project: str = "pixelq"
    """The project of Weights & Biases and Trackio, the experiment of MLflow, the folder of TensorBoard."""
    name: str | None = None
    """The run's name in the tracker (default: the run directory's)."""
    tags: tuple[str, ...] = ()
    """Tags of the run."""


class Tracker(Protocol):
    """One library. All calls come from one thread, which is not the run's."""

    def start(self, options: TrackOptions, run: Path, known: str | None, settings: Mapping[str, Any]) -> str:
        """Begin, or continue.

        Args:
            options: how the run is called.
            run: its directory.
            known: what `start` returned when the run began; None: it begins now.
            settings: config and provenance, flat, by dotted names.

        Returns:
            What the library finds the run again by.
        """

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers of a log tick, under the names of `metrics.jsonl`."""

    def video(self, step: int, path: Path) -> None:
        """A recorded game, MP4."""

    def finish(self, agent: Path | None) -> None:
        """End the process's share; `agent` is the final agent's file if the run is finished, else None."""
