"""Libraries of the package's extras; each serves one feature."""

import importlib.util

from pixelq.errors import PixelqError

__all__ = ["need"]


def need(extra: str, *libraries: str) -> None:
    """Make sure that libraries are installed; imports none.

    Args:
        extra: the extra of pixelq that brings them, e.g. `onnx`.
        libraries: names to import them by.

    Raises:
        PixelqError: one is missing; says how to install it.
    """
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise PixelqError(f"this needs {' and '.join(missing)}: pip install 'pixelq[{extra}]'")
