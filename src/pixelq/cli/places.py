"""Whether a new file or folder can be made, found out without making it."""

import os
from pathlib import Path

from pixelq.errors import PixelqError
from pixelq.run.storage import reason

__all__ = ["check_new_file", "check_new_folder", "check_new_place"]


def check_new_place(option: str, path: Path) -> None:
    """Refuse a path if its nearest existing parent is no folder or cannot be written.

    Args:
        option: the option that gave the path, for the error's text.
        path: the place to write, parents included; existing contents are not checked.

    Raises:
        PixelqError: names the parent, or the path's own error.
    """
    try:
        path.exists()  # a name that is too long is an error here
        parent = next(place for place in path.absolute().parents if place.exists())
        if not parent.is_dir():
            raise PixelqError(f"{option} {path} cannot be made: {parent} is not a folder")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise PixelqError(f"{option} {path} cannot be made: {parent} cannot be written")
    except OSError as error:
        raise PixelqError(f"{option} {path} cannot be made: {reason(error)}") from error


def check_new_folder(option: str, path: Path) -> None:
    """Refuse a path that is no place for a folder; a folder may be there.

    Args:
        option: what gave the path, for the error's text.
        path: what will be made, its parents too.

    Raises:
        PixelqError: the place is none, or a file is there.
    """
    check_new_place(option, path)
    if path.exists() and not path.is_dir():
        raise PixelqError(f"{option} {path} is a file: give a folder")


def check_new_file(option: str, path: Path, suffix: str, file: str, thing: str) -> None:
    """Refuse a path that is no place for a new file; one of that name may be there and will be replaced.

    Args:
        option: what gave the path, for the error's text.
        path: what will be made, its parents too.
        suffix: how its name must end.
        file: its kind, for the error's text, e.g. "an agent file".
        thing: its content, for the error's text, e.g. "agent".

    Raises:
        PixelqError: the name has another ending, the place cannot be written, or a folder is there.
    """
    if path.suffix != suffix:
        raise PixelqError(f"{option} {path}: {file}'s name must end in {suffix}")
    check_new_place(option, path)
    if path.is_dir():
        raise PixelqError(f"{option} {path} is a folder: give the {thing} a file name")
