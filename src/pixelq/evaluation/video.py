"""MP4 files, written as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pixelq.errors import PixelqError
from pixelq.run.storage import storage_errors, sync_directory

__all__ = ["VideoWriter", "video_file"]


class VideoWriter:
    """Encodes pictures as H.264 in one thread; `frames` says how many there are so far.

    Args:
        container: an open MP4 container.
        size: rows and columns of a picture, each times `scale` even.
        scale: whole number that pictures are enlarged by, pixels staying sharp squares.
        rate: pictures a second.
    """

    def __init__(self, container: av.container.OutputContainer, size: tuple[int, int], scale: int, rate: int) -> None:
        self._container = container
        self._stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "18"})
        self._stream.height, self._stream.width = size[0] * scale, size[1] * scale
        self._stream.pix_fmt = "yuv420p"  # what every player and browser decodes
        self._stream.codec_context.thread_count = 1
        self.frames = 0

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Append a picture, [H, W, 3] uint8 RGB."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
            width=self._stream.width, height=self._stream.height, format="yuv420p", interpolation="POINT"
        )
        frame.pts = self.frames
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def finish(self) -> None:
        """Encode the frames that the encoder still holds."""
        self._container.mux(self._stream.encode())


@contextmanager
def video_file(path: Path, size: tuple[int, int], scale: int, rate: int) -> Iterator[VideoWriter]:
    """Write an MP4 that starts to play before it is loaded; it takes its name when the block has ended well.

    Args:
        path: a name that ends in `.mp4`; its folder is made, a file of that name is replaced.
        size: rows and columns of a picture.
        scale: whole number that pictures are enlarged by.
        rate: pictures a second.

    Raises:
        PixelqError: the name has another ending or is a folder.
        StorageError: it cannot be written.
    """
    if path.suffix != ".mp4":
        raise PixelqError(f"{path}: a video's name must end in .mp4")
    if path.is_dir():
        raise PixelqError(f"{path} is a folder: give the video a file name")
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"movflags": "faststart"}
            with av.open(str(temporary), "w", format="mp4", container_options=options) as container:
                writer = VideoWriter(container, size, scale, rate)
                yield writer
                writer.finish()
            temporary.replace(path)
            sync_directory(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
