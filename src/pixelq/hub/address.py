"""Addresses of agents on the hub: `hf:USER/NAME`, or `hf:USER/NAME@REVISION`."""

import re
from pathlib import Path
from typing import NamedTuple

from pixelq.errors import PixelqError

__all__ = ["HubAddress", "is_hub_address", "parse_address", "parse_repository"]

_START = "hf:"
_LONGEST = 96  # characters of `USER/NAME`, the hub's own limit
_WORD = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_WORD}/{_WORD}", re.ASCII)
_REVISION = re.compile(r"[\w.][\w./-]*", re.ASCII)


class HubAddress(NamedTuple):
    """The address of an agent on the hub."""

    repository: str  # `USER/NAME`
    revision: str | None  # a branch, a tag or a commit; None: the newest

    def __str__(self) -> str:
        """The address as on a command line."""
        return f"{_START}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_hub_address(agent: Path | str) -> bool:
    """Whether a word means an agent on the hub; `./hf:name` is always a path.

    Args:
        agent: what the user gave.
    """
    return str(agent).startswith(_START)


def parse_address(text: Path | str) -> HubAddress:
    """Read `hf:USER/NAME[@REVISION]`.

    Args:
        text: what the user gave.

    Raises:
        PixelqError: it has another form.
    """
    name, at, revision = str(text).removeprefix(_START).partition("@")
    if not is_hub_address(text) or not _is_repository(name) or (at and not _is_revision(revision)):
        raise PixelqError(f"{text} is no address on the hub: give hf:USER/NAME or hf:USER/NAME@REVISION")
    return HubAddress(name, revision or None)


def parse_repository(text: str) -> str:
    """Read `USER/NAME`, with or without `hf:`.

    Args:
        text: what the user gave.

    Raises:
        PixelqError: it has another form.
    """
    name = text.removeprefix(_START)
    if not _is_repository(name):
        hint = "; a push always makes a new revision" if "@" in name else ""
        raise PixelqError(f"{text} is no name on the hub: give USER/NAME, letters, digits, - _ and .{hint}")
    return name


def _is_repository(name: str) -> bool:
    fits = _REPOSITORY.fullmatch(name) is not None and len(name) <= _LONGEST
    return fits and "--" not in name and ".." not in name and not name.endswith(".git")


def _is_revision(text: str) -> bool:
    return _REVISION.fullmatch(text) is not None and ".." not in text
