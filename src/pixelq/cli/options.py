"""Options of a verb from a dataclass, the parser's errors made one line."""

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from pixelq.cli.complaints import explain, find_empty
from pixelq.errors import PixelqError

__all__ = ["parse"]

_Options = TypeVar("_Options")


def parse(
    kind: type[_Options],
    words: Sequence[str],
    command: str,
    description: str,
    default: _Options | None = None,
) -> _Options:
    """Read the words of a verb.

    Args:
        kind: a dataclass; its fields are the options, the docstrings under them the help.
        words: what follows the verb.
        command: the command's name, e.g. `pixelq eval`.
        description: its description, for `--help`.
        default: source of the defaults; None: the dataclass.

    Raises:
        PixelqError: unknown, missing or ill-typed; one line.
        SystemExit: the help was asked for and printed.
    """
    # of a choice of dataclasses, the default's own one
    marks = (tyro.conf.AvoidSubcommands,)
    read = functools.partial(tyro.cli, kind, prog=command, description=description, config=marks)
    if default is not None:
        read = functools.partial(read, default=default)
    with warnings.catch_warnings():
        # a user's algorithm, added to ALGO_KINDS: its fields are options as well
        warnings.filterwarnings("ignore", ".* does not match any type in Union", UserWarning)
        options: _Options = _checked(read, kind if default is None else default, words, command)
    return options


def _checked(read: Callable[..., Any], kind: Any, words: Sequence[str], command: str) -> Any:
    """Let tyro read the words, and say in a line why it cannot."""
    if "-h" in words or "--help" in words:
        read(args=["--help"])
    if line := find_empty(kind, words):
        raise PixelqError(f"{line}; see: {command} --help")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return read(args=list(words))
    except SystemExit as error:
        line = explain(kind, words, command)
        line = line or f"{_unboxed(said.getvalue())}; see: {command} --help"
        raise PixelqError(line) from error


def _unboxed(box: str) -> str:
    """What a box of tyro's says, without its frame, its title and its help."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        text = re.sub(r"^[\s│|]+|[\s│|]+$", "", line)
        if re.match(r"[-─╭╮╰╯]{5,}|[╭╰]", text):
            parts.append([])
        elif text:
            parts[-1].append(text)
    texts = [" ".join(part) for part in parts if part]
    # the title comes first, the error second
    return (texts[1:2] or texts[:1] or ["cannot read the options"])[0].removesuffix(".")
