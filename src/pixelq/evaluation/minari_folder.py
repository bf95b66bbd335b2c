"""Folders of whole games as Minari keeps them, written as a whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lz4.block
import numpy as np
from numpy.typing import NDArray

from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.run.storage import storage_errors, sync_directory

__all__ = ["MOST_STEPS", "DatasetGame", "DatasetWriter", "Pictures", "check_collection", "dataset_folder"]

MOST_STEPS = 131_071  # of a game: what reads Parquet for Minari cuts longer ones in two
_MOST_ASKED = 10**9  # steps
_DATA = "data"  # where Minari looks inside a dataset's folder
_NAME = re.compile(r"[-_a-zA-Z0-9]+-v[0-9]+")


class Pictures:
    """Pictures of one shape, each compressed alone, while a game is played.

    Args:
        shape: of a picture, uint8.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._blocks: list[bytes] = []

    def append(self, picture: NDArray[np.uint8]) -> None:
        """Keep one more."""
        self._blocks.append(lz4.block.compress(picture.tobytes(), store_size=False))

    def stacked(self) -> NDArray[np.uint8]:
        """All of them, [T, *shape] uint8."""
        size = int(np.prod(self._shape))
        planes = b"".join(lz4.block.decompress(block, uncompressed_size=size) for block in self._blocks)
        return np.frombuffer(planes, np.uint8).reshape(len(self._blocks), *self._shape)


class DatasetGame(NamedTuple):
    """A whole game of T steps."""

    seed: int  # that it was reset with
    pictures: NDArray[np.uint8]  # [T + 1, H, W], or [T + 1, 3, H, W] in colour: the newest of each stack
    actions: NDArray[np.int64]  # [T]
    rewards: NDArray[np.float32]  # [T], raw score
    terminated: bool  # by its last step
    truncated: bool  # the same
    lives: list[int] | None  # [T + 1]; None where there are none


class DatasetWriter:
    """Appends games to a dataset that is being written.

    Args:
        storage: a `MinariStorage`, new.
    """

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.games = 0

    def append(self, game: DatasetGame) -> None:
        """Write one more game."""
        from minari.data_collector.episode_buffer import EpisodeBuffer

        ends = np.zeros((2, len(game.actions)), np.bool_)
        ends[:, -1] = game.terminated, game.truncated
        episode = EpisodeBuffer(
            id=self.games,
            seed=game.seed,
            observations=game.pictures,
            actions=game.actions,
            rewards=game.rewards,
            terminations=ends[0],
            truncations=ends[1],
            infos=None if game.lives is None else {"lives": game.lives},
        )
        self._storage.update_episodes([episode])
        self.games += 1


def check_collection(path: Path, steps: int) -> None:
    """Refuse a folder that is no place for a new dataset, and a number of steps that is none.

    Args:
        path: what will be made, its parents too.
        steps: to be written.

    Raises:
        PixelqError: the number is out of range, the folder's name is none that Minari loads, something is there, or
            the library is missing.
    """
    if not 1 <= steps <= _MOST_ASKED:
        raise PixelqError(f"--steps is {steps}: must be between 1 and {_MOST_ASKED:,}")
    if not _NAME.fullmatch(path.name):
        raise PixelqError(
            f"--out {path}: Minari needs a folder's name of letters, digits, - and _ that ends in a version, "
            "e.g. breakout-v0"
        )
    if path.exists() and not path.is_dir():
        raise PixelqError(f"--out {path} is a file: name a new folder")
    if path.is_dir() and any(path.iterdir()):
        raise PixelqError(f"--out {path} is there and not empty: name a new folder")
    need("minari", "minari", "pyarrow")


@contextmanager
def dataset_folder(
    path: Path, picture: tuple[int, ...], num_actions: int, facts: dict[str, Any]
) -> Iterator[DatasetWriter]:
    """Write a dataset of Minari; it takes its name when the block has ended well.

    Pictures are kept bit for bit, in Parquet: JPEG, Minari's default, changes an agent's actions.

    Args:
        path: the folder, as `check_collection` wants it.
        picture: shape of a picture, uint8.
        num_actions: actions of the game, A.
        facts: entries of its metadata beside Minari's own.

    Raises:
        StorageError: it cannot be written.
    """
    import gymnasium
    import minari
    from minari.dataset.minari_storage import MinariStorage

    temporary = path.absolute().with_name(f".tmp-{os.getpid()}-{path.name}")  # Minari loses its way from a relative one
    try:
        with storage_errors(path):
            (temporary / _DATA).mkdir(parents=True)
            storage = MinariStorage.new(
                temporary / _DATA,
                observation_space=gymnasium.spaces.Box(0, 255, picture, np.uint8),
                action_space=gymnasium.spaces.Discrete(num_actions),
                data_format="parquet",
                jpeg_encoding=False,
            )
            storage.update_metadata({"dataset_id": path.name, "minari_version": minari.__version__, **facts})
            yield DatasetWriter(storage)
            if path.is_dir():
                path.rmdir()
            temporary.rename(path)
            sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
