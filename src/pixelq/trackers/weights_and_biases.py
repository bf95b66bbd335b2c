"""Weights & Biases."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.trackers.protocol import TrackOptions

__all__ = ["WeightsAndBiases"]


class WeightsAndBiases:
    """A run of wandb; `WANDB_MODE=offline` and its other variables are wandb's own."""

    def __init__(self) -> None:
        need("wandb", "wandb")
        self._run: Any = None

    def start(self, options: TrackOptions, run: Path, known: str | None, settings: Mapping[str, Any]) -> str:
        """Begin a run, or continue the run with this id."""
        import wandb

        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login(prompt=False, verify=False):
            raise PixelqError("no API key: wandb login, or WANDB_MODE=offline")  # a prompt would wait for ever
        identity = known or uuid.uuid4().hex[:12]
        mode: Any = os.environ.get("WANDB_MODE")  # wandb keeps the value of its first use
        self._run = wandb.init(
            project=options.project,
            name=options.name or run.name,
            tags=list(options.tags),
            id=identity,
            resume="allow",
            dir=str(run),
            config=dict(settings),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )
        # a separate axis: a resume logs some steps again, but wandb's own step never goes back
        self._run.define_metric("*", step_metric="step")
        return identity

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log numbers against `step`."""
        self._run.log({**metrics, "step": step})

    def video(self, step: int, path: Path) -> None:
        """Log an MP4 as `video`."""
        import wandb

        self._run.log({"video": wandb.Video(str(path), format="mp4"), "step": step})

    def finish(self, agent: Path | None) -> None:
        """Add the agent as an artefact and close the run."""
        import wandb

        if agent is not None:
            artefact = wandb.Artifact(f"agent-{self._run.id}", type="model")
            artefact.add_file(str(agent), name="agent.safetensors")
            self._run.log_artifact(artefact)
        self._run.finish()
