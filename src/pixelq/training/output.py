"""Standard output for training: training continues even if the output fails."""

import io
import os
import sys
from contextlib import suppress

__all__ = ["Output", "can_draw", "in_notebook", "is_terminal"]


class Output(io.TextIOBase):
    """Standard output that neither delays nor ends a run.

    A pipe without a reader, a full disk, a lost terminal or a closed output gets no more text.
    Characters that the encoding lacks become question marks.
    """

    def __init__(self) -> None:
        # as it is now: while a live bar is shown, rich puts in its place what writes here
        self._stream = sys.stdout

    def write(self, text: str) -> int:
        """Write as much as possible; return the full length."""
        stream = self._stream
        with suppress(OSError, ValueError):  # a ValueError: it is closed
            if stream is not None:
                stream.write(_writable(text, self.encoding))
        return len(text)

    def flush(self) -> None:
        """Let it go out, if it can."""
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return is_terminal(self._stream)

    def fileno(self) -> int:
        """The descriptor, which tells how wide a terminal is."""
        if self._stream is None:
            raise OSError("there is no standard output")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding; it decides the bar's characters."""
        return getattr(self._stream, "encoding", None) or "utf-8"


def is_terminal(stream: object) -> bool:
    """Whether a standard stream, which may be None or closed, is a terminal."""
    try:
        return bool(getattr(stream, "isatty", bool)())
    except (OSError, ValueError):
        return False


def _writable(text: str, encoding: str) -> str:
    """The text with question marks for characters that the encoding lacks."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, errors="replace").decode(encoding)
    return text


def can_draw(stream: object) -> bool:
    """Whether a standard stream is a terminal that moves its cursor.

    A dumb terminal cannot. Nor can a notebook's output of `!pixelq train`, which looks like a terminal to the command.
    """
    environment = os.environ
    # variables of a notebook's kernel, and of the commands that it runs
    kernel = "JPY_PARENT_PID" in environment or (
        environment.get("TERM") == "xterm-color" and environment.get("GIT_PAGER") == environment.get("PAGER") == "cat"
    )
    return is_terminal(stream) and not kernel and environment.get("TERM", "") not in ("dumb", "unknown")


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, so that outputs can be pages."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and hasattr(get_ipython(), "kernel")
