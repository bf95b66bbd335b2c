"""What the benchmarks' own options must be."""

from pixelq.errors import PixelqError

__all__ = ["check_seconds"]


def check_seconds(seconds: float) -> None:
    """Refuse a time that is no number, or far too long.

    Raises:
        PixelqError: below 0 or above an hour.
    """
    if not 0 <= seconds <= 3_600:
        raise PixelqError(f"--seconds is {seconds:g}: must be between 0 and 3,600")
