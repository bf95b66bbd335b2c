"""From a game's pictures to the network's observations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelq.config import ViewConfig
from pixelq.errors import PixelqError
from pixelq.extras import install_command

__all__ = ["Preprocessing"]

_LUMA = np.array([0.2125, 0.7154, 0.0721])  # of red, green and blue, as Gymnasium's GrayscaleObservation


class Preprocessing:
    """The brighter of the last pictures, cut, resized by area, grey unless in colour.

    Args:
        view: settings of the network's observations.
        shown: shape of the game's pictures, [H, W] or [H, W, 1 or 3].

    Raises:
        PixelqError: nothing is left of the picture, there is no colour in it, or OpenCV is missing.

    Source: Mnih et al. 2015, Methods, Preprocessing; as Gymnasium's `MaxAndSkipObservation`, `ResizeObservation` and
    `GrayscaleObservation` one after the other.
    """

    def __init__(self, view: ViewConfig, shown: tuple[int, ...]) -> None:
        self._view = view
        self._grey = len(shown) == 2 or shown[2] == 1
        top, bottom, left, right = view.crop
        rows, columns = shown[0] - top - bottom, shown[1] - left - right
        if rows < 1 or columns < 1:
            raise PixelqError(
                f"--env.crop {top} {bottom} {left} {right} leaves nothing of a picture of {shown[0]}×{shown[1]}"
            )
        if view.colour and self._grey:
            raise PixelqError("--env.colour: this game's pictures are grey; leave it out")
        self._box = slice(top, top + rows), slice(left, left + columns)
        self._resizes = (rows, columns) != (view.height, view.width)
        if self._resizes:
            try:
                import cv2
            except ImportError as error:
                raise PixelqError(f"pictures are resized by OpenCV: {install_command('envs')}") from error
            cv2.setNumThreads(0)  # pictures are small, and its threads would not survive a fork

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """One picture in the network's format.

        Args:
            pictures: the last one or two that the game has shown.

        Returns:
            [H, W] uint8 in grey, [3, H, W] in colour, not to be written to.
        """
        picture: NDArray[Any] = pictures[0] if len(pictures) == 1 else np.maximum(*pictures)
        picture = picture[self._box]
        if self._grey and picture.ndim == 3:
            picture = picture[:, :, 0]
        if self._resizes:
            import cv2

            size = (self._view.width, self._view.height)
            resized: NDArray[Any] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            picture = resized
        if self._view.colour:
            return np.ascontiguousarray(picture.transpose(2, 0, 1))
        grey: NDArray[np.uint8] = picture if self._grey else np.sum(picture * _LUMA, axis=-1).astype(np.uint8)
        return grey
