"""Checks of a downloaded file before it is read as an agent."""

import json
import math
from pathlib import Path

from pixelq.errors import PixelqError

__all__ = ["LARGEST", "check_agent_file"]

LARGEST = 2**29  # bytes of an agent file; the largest preset's has some 60 MB
_LONGEST_HEADER = 2**20  # bytes
_MOST_TENSORS = 10_000
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}  # of a weight


def check_agent_file(path: Path, name: str) -> None:
    """Make sure that a file is safetensors of plain weights; reads its header and nothing else.

    The loader of the agent checks the agent card and its shapes.

    Args:
        path: the file.
        name: its name in an error.

    Raises:
        PixelqError: it is another kind of file, or not whole.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise PixelqError(f"{name} holds no safetensors file: its header has {length:,} bytes")
            header = json.loads(file.read(length))
    except OSError as error:
        raise PixelqError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PixelqError(f"{name} holds no safetensors file: its header is no JSON") from error
    if not isinstance(header, dict) or len(header) > _MOST_TENSORS:
        raise PixelqError(f"{name} holds no safetensors file: its header lists no tensors")
    header.pop("__metadata__", None)
    total = sum(_bytes_of(tensor, word, name) for word, tensor in header.items())
    if total != size - 8 - length:
        raise PixelqError(f"{name} is damaged: its tensors take {total:,} bytes, the file has {size - 8 - length:,}")


def _bytes_of(tensor: object, word: str, name: str) -> int:
    """Bytes of a tensor, as its entry of the header says."""
    entry = tensor if isinstance(tensor, dict) else {}
    kind, shape = entry.get("dtype"), entry.get("shape")
    if kind not in _BYTES:
        raise PixelqError(f"{name}: {word[:80]} is {kind}: weights are {', '.join(_BYTES)}")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise PixelqError(f"{name}: {word[:80]} has no proper shape")
    return _BYTES[str(kind)] * math.prod(shape)
