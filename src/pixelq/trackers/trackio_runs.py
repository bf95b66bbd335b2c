"""Trackio."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelq.extras import need
from pixelq.trackers.protocol import TrackOptions

__all__ = ["TrackioRuns"]


class TrackioRuns:
    """A run in Trackio, in `TRACKIO_DIR` or as its other variables say."""

    def __init__(self) -> None:
        need("trackio", "trackio")
        self._run: Any = None

    def start(self, options: TrackOptions, run: Path, known: str | None, settings: Mapping[str, Any]) -> str:
        """Begin a run, or continue the run with this name."""
        import trackio

        for module in (trackio, trackio.run, trackio.utils):
            vars(module)["print"] = _nothing  # it has no option for silence; standard output is the run's
        name = known or options.name or run.resolve().name
        self._run = trackio.init(
            project=options.project,
            name=name,
            resume="never" if known is None else "allow",
            config={**settings, "tags": list(options.tags)},
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log numbers at a step."""
        self._run.log(dict(metrics), step=step)

    def video(self, step: int, path: Path) -> None:
        """Log an MP4 as `video`."""
        import trackio

        self._run.log({"video": trackio.Video(str(path))}, step=step)

    def finish(self, agent: Path | None) -> None:
        """Keep the agent as an artefact and end the run."""
        import trackio

        if agent is not None:
            artefact = trackio.Artifact(name=f"agent-{self._run.name}", type="model")
            artefact.add_file(str(agent), name="agent.safetensors")
            self._run.log_artifact(artefact)
        self._run.finish()


def _nothing(*words: object, **settings: object) -> None:
    del words, settings
