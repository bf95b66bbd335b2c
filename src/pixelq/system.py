"""What only some systems can do, each with a second road for the others. Imports no torch."""

import os
from pathlib import Path

__all__ = ["sync_directory"]


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; a rename is not until its directory is synced.

    Windows has nothing of the kind, and needs none: NTFS keeps a journal of names.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
