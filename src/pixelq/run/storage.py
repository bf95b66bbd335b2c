"""Writing files that a kill or a power cut leaves whole, and one line for why one could not be written."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pixelq.errors import PixelqError
from pixelq.system import sync_directory

__all__ = [
    "Digest",
    "DigestWriter",
    "StorageError",
    "digest",
    "durable_file",
    "reason",
    "storage_errors",
    "sync_directory",
    "write_atomically",
]

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}
_DIGEST_BYTES = 32


class StorageError(PixelqError):
    """A write failed: the disk is full, read-only, or failing."""

    exit_status = 1  # the input was fine; what failed is the machine


class Digest(NamedTuple):
    """What tells a file's content from any other."""

    size: int  # bytes
    blake2b: str  # hex


class DigestWriter:
    """Writes to a file and computes the digest of the written bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes; returns how many, all of them."""
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)
        return len(data)

    def digest(self) -> Digest:
        """The digest of everything written so far."""
        return Digest(self._size, self._hash.hexdigest())


def digest(data: bytes) -> Digest:
    """The digest of bytes in memory."""
    return Digest(len(data), hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest())


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn any `OSError` of the block into one line.

    Args:
        path: the file to write, for the error's text.

    Raises:
        StorageError: names the path and the reason.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """Why the system refused, in words."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


@contextmanager
def durable_file(path: Path) -> Iterator[DigestWriter]:
    """Write a file that is on the disk when the block ends; its name is durable after `sync_directory`."""
    with path.open("wb") as file:
        yield DigestWriter(file)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file as a whole: a reader sees the old bytes or the new ones, also after a power cut."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with durable_file(temporary) as file:
            file.write(data)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
