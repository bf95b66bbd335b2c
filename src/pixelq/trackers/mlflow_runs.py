"""MLflow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelq.extras import need
from pixelq.trackers.protocol import TrackOptions

__all__ = ["MlflowRuns"]

_LONGEST = 500  # characters of a parameter's value
_AT_ONCE = 100  # parameters a call


class MlflowRuns:
    """A run in MLflow, at `MLFLOW_TRACKING_URI`."""

    def __init__(self) -> None:
        need("mlflow", "mlflow")
        self._client: Any = None
        self._id = ""

    def start(self, options: TrackOptions, run: Path, known: str | None, settings: Mapping[str, Any]) -> str:
        """Begin a run, or continue the run with this id."""
        import mlflow
        from mlflow.entities import Param

        self._client = mlflow.MlflowClient()
        if known is None:
            experiment = mlflow.set_experiment(options.project)
            tags = {**dict.fromkeys(options.tags, "true"), "mlflow.source.name": "pixelq"}
            made = self._client.create_run(
                experiment.experiment_id, tags=tags, run_name=options.name or run.resolve().name
            )
            known = str(made.info.run_id)
            parameters = [Param(name, str(value)[:_LONGEST]) for name, value in settings.items()]
            for first in range(0, len(parameters), _AT_ONCE):
                self._client.log_batch(known, params=parameters[first : first + _AT_ONCE])
        else:
            self._client.update_run(known, status="RUNNING")
        self._id = known
        return known

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log numbers at a step."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=batch)

    def video(self, step: int, path: Path) -> None:
        """Keep an MP4 among the artefacts."""
        del step  # its name says it
        self._client.log_artifact(self._id, str(path), "videos")

    def finish(self, agent: Path | None) -> None:
        """Keep the agent among the artefacts and end the run; one to be resumed is marked as killed."""
        if agent is not None:
            self._client.log_artifact(self._id, str(agent), "agent")
        self._client.set_terminated(self._id, "KILLED" if agent is None else "FINISHED")
