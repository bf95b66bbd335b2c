"""The batches that actors send: steps of their games in a few bytes. Imports neither Ray nor torch.

    header | LZ4 of (actions, flags, lives, rewards, sizes of the blocks) | the pictures' blocks

A picture is an LZ4 block with the game's previous picture as its dictionary: most of a picture does not change from
step to step. A batch's first picture uses no other batch, so every batch can be read alone.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import lz4.block
import numpy as np
from numpy.typing import NDArray

from pixelq.config import ObsShape

__all__ = ["BatchError", "Row", "RowReader", "pack"]

_MARK = b"pxq1"
_HEADER = struct.Struct("<4sIHHII")  # mark, checksum, rows, games, bytes of the numbers, compressed bytes
_CHECKED = 8  # the checksum is over all bytes from here on
_MOST_ROWS = 2**16 - 1
_TERMINATED, _TRUNCATED, _RESET = 1, 2, 4


class BatchError(ValueError):
    """These bytes are no batch of these games."""


class Row(NamedTuple):
    """One step of an actor's E games: the actions and their results."""

    actions: NDArray[np.uint8]  # [E] executed
    reward: NDArray[np.float32]  # [E] raw
    terminated: NDArray[np.bool_]  # [E]
    truncated: NDArray[np.bool_]  # [E]
    reset: NDArray[np.bool_]  # [E] the action was ignored, and a game starts
    lives: NDArray[np.int32]  # [E] after the step
    pictures: NDArray[np.uint8]  # [E, 84, 84] newest picture after the step; [E, 3, H, W] in colour


def pack(rows: Sequence[Row]) -> bytes:
    """The bytes of a batch.

    Args:
        rows: at least one, of the same games.
    """
    count, games = len(rows), len(rows[0].actions)
    if count > _MOST_ROWS:
        raise ValueError(f"a batch has at most {_MOST_ROWS:,} rows, not {count:,}")
    blocks: list[bytes] = []
    last: list[bytes] = [b""] * games
    for row in rows:
        pictures = [picture.tobytes() for picture in row.pictures]
        blocks += [
            lz4.block.compress(picture, store_size=False, dict=before)
            for picture, before in zip(pictures, last, strict=True)
        ]
        last = pictures
    flags = [_TERMINATED * row.terminated + _TRUNCATED * row.truncated + _RESET * row.reset for row in rows]
    arrays = (
        np.stack([row.actions for row in rows]).astype(np.uint8),
        np.stack(flags).astype(np.uint8),
        np.stack([row.lives for row in rows]).astype("<i4"),
        np.stack([row.reward for row in rows]).astype("<f4"),
        np.array([len(block) for block in blocks], "<u4"),
    )
    numbers = b"".join(array.tobytes() for array in arrays)
    packed = lz4.block.compress(numbers, store_size=False)
    rest = b"".join([_HEADER.pack(_MARK, 0, count, games, len(numbers), len(packed))[_CHECKED:], packed, *blocks])
    return _MARK + zlib.crc32(rest).to_bytes(4, "little") + rest


class RowReader:
    """Reads the rows of a batch one after the other; pictures are decompressed when their row is read.

    Args:
        data: output of `pack`.
        games: E, games of the actor.
        num_actions: number of actions.
        shape: of the observations.

    Raises:
        BatchError: it is no batch of these games, or damaged.
    """

    def __init__(self, data: bytes, games: int, num_actions: int, shape: ObsShape) -> None:
        if len(data) < _HEADER.size:
            raise BatchError(f"a batch of {len(data)} bytes has no header")
        mark, checksum, self.rows, held, size, packed = _HEADER.unpack_from(data)
        if checksum != zlib.crc32(memoryview(data)[_CHECKED:]):
            raise BatchError("a batch is damaged")
        cells = self.rows * held
        if mark != _MARK or held != games or not cells or size != cells * 14:
            raise BatchError("the header of a batch does not fit these games")
        start = _HEADER.size + packed
        numbers = lz4.block.decompress(data[_HEADER.size : start], uncompressed_size=size)
        grid = (self.rows, held)
        self._actions = np.frombuffer(numbers, np.uint8, cells).reshape(grid)
        self._flags = np.frombuffer(numbers, np.uint8, cells, cells).reshape(grid)
        self._lives = np.frombuffer(numbers, "<i4", cells, 2 * cells).reshape(grid)
        self._rewards = np.frombuffer(numbers, "<f4", cells, 6 * cells).reshape(grid)
        sizes = np.frombuffer(numbers, "<u4", cells, 10 * cells).astype(np.int64)
        self._ends = start + np.cumsum(sizes)
        if self._ends[-1] != len(data) or int(self._actions.max()) >= num_actions:
            raise BatchError("the blocks or the actions of a batch do not fit these games")
        self._starts = self._ends - sizes
        self._data, self._shape = data, shape
        self._last: list[bytes] = [b""] * games
        self._next = 0

    @property
    def left(self) -> int:
        """Rows that are not read yet."""
        return int(self.rows) - self._next

    @property
    def begins_games(self) -> bool:
        """Whether all games start with the first row."""
        return bool((self._flags[0] & _RESET).all())

    def read(self) -> Row:
        """The next row."""
        at, games = self._next, self._actions.shape[1]
        pictures = [self._picture(at * games + game, self._last[game]) for game in range(games)]
        self._last = pictures
        self._next += 1
        flags = self._flags[at]
        return Row(
            actions=self._actions[at],
            reward=self._rewards[at].astype(np.float32),
            terminated=flags & _TERMINATED > 0,
            truncated=flags & _TRUNCATED > 0,
            reset=flags & _RESET > 0,
            lives=self._lives[at].astype(np.int32),
            pictures=np.frombuffer(b"".join(pictures), np.uint8).reshape(games, *self._shape.picture),
        )

    def _picture(self, block: int, before: bytes) -> bytes:
        data = self._data[self._starts[block] : self._ends[block]]
        picture: bytes = lz4.block.decompress(data, uncompressed_size=self._shape.picture_bytes, dict=before)
        return picture
