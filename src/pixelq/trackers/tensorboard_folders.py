"""TensorBoard, in a folder for each project."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any

from pixelq.trackers.protocol import TrackOptions

__all__ = ["TensorBoard"]

_FOLDER = "tensorboard"
_PICTURES, _SECONDS, _WIDTH = 150, 0.1, 160  # of a video: most pictures, time between two, pixels


class TensorBoard:
    """Event files in `tensorboard/PROJECT/NAME`: beside the numbers, which every run keeps, settings and videos."""

    def __init__(self) -> None:
        self._folder = Path()
        self._events: Any = None

    def start(self, options: TrackOptions, run: Path, known: str | None, settings: Mapping[str, Any]) -> str:
        """Begin a folder, or continue in one."""
        if known is not None:
            self._folder = Path(known)
            return known
        place = Path(os.environ.get("TENSORBOARD_LOGDIR") or _FOLDER) / options.project
        name = options.name or run.resolve().name
        self._folder = _new_folder(place.absolute(), name)
        self._open(None)
        rows = [f"| {key} | {value} |" for key, value in settings.items()]
        self._events.add_text("settings", "\n".join(["| | |", "| --- | --- |", *rows]), 0)
        if options.tags:
            self._events.add_text("tags", " ".join(options.tags), 0)
        self._add_hyperparameters(settings)
        return str(self._folder)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log numbers at a step; of a resumed run, those after its first step are forgotten and come anew."""
        if self._events is None:
            self._open(step)
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def video(self, step: int, path: Path) -> None:
        """Show the beginning of an MP4, smaller, as a moving picture."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        data, width, height = _moving_picture(path)
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        if self._events is None:
            self._open(step)
        summary = Summary(value=[Summary.Value(tag="video", image=picture)])
        self._events.file_writer.add_summary(summary, step)

    def finish(self, agent: Path | None) -> None:
        """Keep the agent beside the event files, and close them."""
        if agent is not None:
            copyfile(agent, self._folder / "agent.safetensors")
        if self._events is not None:
            self._events.close()

    def _open(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._events = SummaryWriter(str(self._folder), purge_step=purge_step)

    def _add_hyperparameters(self, settings: Mapping[str, Any]) -> None:
        """What the page's table of runs shows."""
        from torch.utils.tensorboard.summary import hparams

        plain = {
            name.removeprefix("config."): value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in settings.items()
            if name.startswith("config.")
        }
        scores = {"train/return_per_game": 0.0}  # the column; its numbers are those that are logged
        for part in hparams(plain, scores):  # type: ignore[no-untyped-call]
            self._events.file_writer.add_summary(part)


def _new_folder(place: Path, name: str) -> Path:
    """A new folder, `NAME-2` if another run has the name."""
    place.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = place / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _moving_picture(path: Path) -> tuple[bytes, int, int]:
    """A GIF of a video's beginning, with its width and height."""
    import av

    pictures: list[Any] = []
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        due = 0.0
        for frame in video.decode(stream):
            if frame.time is not None and frame.time + 1e-6 < due:
                continue
            due += _SECONDS
            height = max(1, round(frame.height * _WIDTH / frame.width))
            pictures.append(frame.to_image(width=_WIDTH, height=height))  # type: ignore[no-untyped-call]
            if len(pictures) == _PICTURES:
                break
    data = io.BytesIO()
    pictures[0].save(
        data, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 * _SECONDS), loop=0, optimize=False
    )
    return data.getvalue(), *pictures[0].size
