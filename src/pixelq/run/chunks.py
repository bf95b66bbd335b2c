"""A chunk of replay rows as one zstd file: a JSON header and the arrays' bytes, one after the other."""

import json
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import zstandard

from pixelq.run.storage import Digest, DigestWriter

__all__ = ["Chunk", "chunk_name", "decode_arrays", "encode_arrays"]

# 50,000 planes of Breakout played at random, 353 MB, on one core: level 3 takes 0.12 s for 28 bytes a plane,
# level 5 0.23 s for 21, level 6 0.28 s for 20; long-distance matching 0.6 s for 18. That needs no threads.
_LEVEL = 5
_LENGTH_BYTES = 8  # little-endian length of the header
_KINDS = "biuf"  # booleans, integers, floats


class Chunk(NamedTuple):
    """Rows `[start, end)` of a replay buffer, by global row number."""

    start: int
    end: int
    arrays: Callable[[], Mapping[str, np.ndarray]]
    """Makes the named arrays, numbers or booleans of any shape. Saving calls it only for a chunk that is not
    on disk yet, one at a time; the arrays of a loaded chunk are read from the file and decompressed."""


def chunk_name(start: int, end: int, content: Digest) -> str:
    """File name of a chunk: sorts by row, and differs whenever the content does."""
    return f"rows-{start:012d}-{end:012d}-{content.blake2b[:8]}.zst"


def encode_arrays(arrays: Mapping[str, np.ndarray], file: DigestWriter) -> None:
    """Write named arrays compressed; the same arrays always give the same bytes.

    Args:
        arrays: numbers or booleans, any shape.
        file: where to.

    Raises:
        TypeError: an array of objects, text or times.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in whole.items():
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"array {name!r} has dtype {array.dtype}: only numbers and booleans are stored")
    table = [[name, array.dtype.str, list(arrays[name].shape)] for name, array in whole.items()]
    header = json.dumps(table, separators=(",", ":")).encode()
    size = _LENGTH_BYTES + len(header) + sum(array.nbytes for array in whole.values())
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    # no `with`: after a failed write it would end the frame, and its own error would hide the disk's
    stream = compressor.stream_writer(cast("BinaryIO", file), size=size, closefd=False)
    stream.write(len(header).to_bytes(_LENGTH_BYTES, "little"))
    stream.write(header)
    for array in whole.values():
        if array.size:  # memoryview cannot cast an empty array
            stream.write(array.data.cast("B"))
    stream.close()  # type: ignore[no-untyped-call]


def decode_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The named arrays that `encode_arrays` wrote.

    Args:
        data: the whole file, its checksum already verified.

    Raises:
        ValueError: not such a file; nothing larger than its frame declares is ever allocated.
    """
    try:
        size = zstandard.frame_content_size(data)
        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            length = int.from_bytes(_read(stream, _LENGTH_BYTES), "little")
            if length > size:
                raise ValueError("header longer than the file")
            table: list[tuple[str, str, list[int]]] = json.loads(_read(stream, length))
            kinds = [(name, np.dtype(kind), tuple(shape)) for name, kind, shape in table]
            total = sum(kind.itemsize * int(np.prod(shape, dtype=object)) for _, kind, shape in kinds)
            if _LENGTH_BYTES + length + total != size or any(kind.kind not in _KINDS for _, kind, _ in kinds):
                raise ValueError("arrays do not fit the file")
            arrays = {name: _read_array(stream, kind, shape) for name, kind, shape in kinds}
            if stream.read(1):
                raise ValueError("bytes after the arrays")
            return arrays
    except (zstandard.ZstdError, TypeError, RecursionError) as error:
        raise ValueError(f"not a chunk: {error}") from error


def _read(stream: Any, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError("ends too early")
    return cast("bytes", data)


def _read_array(stream: Any, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(shape, kind)
    if array.size:
        view = array.data.cast("B")
        done = 0
        while done < len(view):
            count = stream.readinto(view[done:])
            if not count:
                raise ValueError("ends too early")
            done += count
    return array
