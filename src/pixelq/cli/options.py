"""Options of a verb from a dataclass, the parser's errors made one line."""

import contextlib
import functools
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

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
        command: how the verb is called, e.g. `pixelq eval`.
        description: what it does, for `--help`.
        default: where the defaults come from; None: the dataclass.

    Raises:
        PixelqError: unknown, missing or ill-typed; one line.
    """
    read = functools.partial(tyro.cli, kind, prog=command, description=description)
    if default is not None:
        read = functools.partial(read, default=default)
    if "-h" in words or "--help" in words:
        read(args=["--help"])
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            options: _Options = read(args=list(words))
    except SystemExit as error:
        raise PixelqError(f"{_one_line(said.getvalue())}; see: {command} --help") from error
    return options


def _one_line(box: str) -> str:
    """What a box of tyro's says, without its frame, its title and its help."""
    lines = [re.sub(r"^[\s│|]+|[\s│|]+$", "", line) for line in box.splitlines()]
    parts: list[list[str]] = [[]]
    for line in lines:
        if re.fullmatch(r"[-─╭╮╰╯]{5,}", line) or re.match(r"[╭╰]", line):
            parts.append([])
        elif line:
            parts[-1].append(line)
    texts = [" ".join(part) for part in parts if part]
    # the title stands first, the error second
    text = texts[1] if len(texts) > 1 else " ".join(texts) or "cannot read the options"
    text = text.removesuffix(".").replace("Unrecognized options:", "unknown option or word:")
    near = next((part for part in parts if part and re.match(r"Perhaps you meant|Arguments similar", part[0])), None)
    if near and len(near) > 1:
        text += f" (did you mean {near[1].split()[0].rstrip(',')}?)"
    return text[:1].lower() + text[1:]
