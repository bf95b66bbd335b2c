"""Libraries of the package's extras; each serves one feature."""

import importlib.util
from pathlib import Path

from pixelq.errors import PixelqError

__all__ = ["install_command", "need"]


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
        raise PixelqError(f"this needs {' and '.join(missing)}: {install_command(extra)}")


def install_command(extra: str, root: Path = Path(__file__).parents[2]) -> str:
    """The command that installs an extra: from the checkout that pixelq runs from, else from an index.

    Args:
        extra: an extra of pixelq.
        root: the checkout's folder, if there is one.
    """
    if (root / "constraints.txt").is_file() and (root / "src" / "pixelq" / Path(__file__).name).is_file():
        return f"pip install -c constraints.txt -e '.[{extra}]' (in {root})"
    return f"pip install 'pixelq[{extra}]'"
