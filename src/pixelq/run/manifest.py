"""A checkpoint's manifest: all its files with size and checksum, and the manifest's own checksum."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelq.errors import CheckpointError
from pixelq.run.storage import Digest, digest, reason

__all__ = ["MANIFEST", "Manifest", "read_manifest", "render_manifest", "verify_file"]

MANIFEST = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of."""

    step: int
    files: dict[str, Digest] = field(default_factory=dict)
    """By name, in the checkpoint's own folder."""
    chunks: dict[tuple[int, int], Digest] = field(default_factory=dict)
    """By replay rows (start, end), in the folder that all checkpoints share."""


def render_manifest(manifest: Manifest) -> bytes:
    """The manifest's bytes; the same manifest always gives the same bytes."""
    body: dict[str, Any] = {
        "format": _FORMAT,
        "step": manifest.step,
        "files": {name: list(entry) for name, entry in manifest.files.items()},
        "chunks": [[start, end, *entry] for (start, end), entry in manifest.chunks.items()],
    }
    return _seal(body)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest, trusting none of its bytes.

    Raises:
        CheckpointError: missing or damaged anywhere; names the file.
        OSError: it cannot be read; its contents may still be good.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    try:
        body = json.loads(data)
        body.pop("blake2b")
        # rendering again compares every byte, white space and the checksum's own included
        intact = _seal(body) == data
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: not a manifest") from error
    if not intact:
        raise CheckpointError(f"{path} is damaged: its checksum differs")
    if body["format"] != _FORMAT:
        raise CheckpointError(f"{path} has format {body['format']}: this pixelq reads format {_FORMAT}")
    return Manifest(
        step=body["step"],
        files={name: Digest(*entry) for name, entry in body["files"].items()},
        chunks={(start, end): Digest(*entry) for start, end, *entry in body["chunks"]},
    )


def verify_file(path: Path, expected: Digest) -> bytes:
    """Read a file whole and compare it with its digest.

    Returns:
        The bytes that were compared.

    Raises:
        CheckpointError: missing, of another length or damaged; names the file.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size == expected.size else b""
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    if len(data) != expected.size:
        raise CheckpointError(f"{path} is damaged: {size:,} bytes instead of {expected.size:,}")
    if digest(data) != expected:
        raise CheckpointError(f"{path} is damaged: its checksum differs")
    return data


def _seal(body: dict[str, Any]) -> bytes:
    text = json.dumps(body, indent=1)
    return json.dumps({**body, "blake2b": digest(text.encode()).blake2b}, indent=1).encode() + b"\n"
