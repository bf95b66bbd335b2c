"""The folder of many runs: whether it may hold a sweep, or a study."""

from pathlib import Path

from pixelq.errors import PixelqError

__all__ = ["PLAN", "STUDY", "check_folder"]

PLAN = "sweep.toml"  # a sweep's plan
STUDY = "study.journal"  # a study's storage
_WHAT = {PLAN: "a sweep", STUDY: "a study", "config.json": "a run"}


def check_folder(folder: Path, own: str) -> None:
    """Refuse a folder that is something else already.

    Args:
        folder: where runs are to go; it need not exist.
        own: the file that marks it as what it is to be, `PLAN` or `STUDY`.

    Raises:
        PixelqError: it is a file, a run directory, or the folder of the other kind.
    """
    if folder.exists() and not folder.is_dir():
        raise PixelqError(f"{folder} is a file: give a folder")
    for file, what in _WHAT.items():
        if file != own and (folder / file).exists():
            raise PixelqError(f"{folder} holds {what}: give {_WHAT[own]} a folder of its own")
