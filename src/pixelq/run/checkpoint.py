"""Checkpoints on disk: JSON state, named tensors, append-only replay chunks; it does not know their meaning.

    checkpoints/step-000000050000/manifest.json      every file below and the chunks, each with its checksum
    checkpoints/step-000000050000/state.json         plain values
    checkpoints/step-000000050000/NAME.safetensors   one file a group of tensors
    checkpoints/chunks/rows-START-END-SUM.zst        replay rows, shared by all checkpoints that need them

Nothing is unpickled. A checkpoint appears by one rename after all of its files are on the disk, so a kill at
any instant leaves it whole or absent; its files never change afterwards.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from pixelq.errors import CheckpointError
from pixelq.run.chunks import Chunk, chunk_name, decode_arrays, encode_arrays
from pixelq.run.manifest import MANIFEST, Manifest, read_manifest, render_manifest, verify_file
from pixelq.run.storage import Digest, durable_file, reason, storage_errors, sync_directory

__all__ = ["Checkpoint", "CheckpointStore", "Chunk"]

_STATE = "state.json"
_TEMPORARY = ".tmp-"  # prefix of unfinished files; a killed writer may leave some
_GROUP = re.compile(r"[a-z0-9_]+")
_FOLDER = re.compile(r"step-(\d{12,})(?:-(\d+))?")


class _Place(NamedTuple):
    """A checkpoint's folder; a later one of the same step has a higher generation."""

    step: int
    generation: int
    path: Path


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint; all its files match their checksums."""

    step: int
    state: dict[str, Any]
    """The `state` given to `save`, plain JSON values."""
    path: Path
    """Its folder, with one `NAME.safetensors` for each group."""
    manifest: Manifest = field(repr=False)

    def has(self, name: str) -> bool:
        """Whether there is a group of tensors of that name."""
        return _group_file(name) in self.manifest.files

    def tensors(self, name: str) -> dict[str, Tensor]:
        """A group of tensors, on the CPU; saved NumPy arrays become tensors too.

        Raises:
            CheckpointError: there is no such group, or it was damaged since.
        """
        file = _group_file(name)
        if not self.has(name):
            raise CheckpointError(f"{self.path} has no tensors named {name!r}")
        return safetensors.torch.load(verify_file(self.path / file, self.manifest.files[file]))

    @property
    def chunks(self) -> Iterator[Chunk]:
        """The replay's chunks, in the order they were given to `save`; calling `arrays` reads the file."""
        folder = _chunk_folder(self.path.parent)
        for (start, end), entry in self.manifest.chunks.items():
            yield Chunk(start, end, partial(_read_chunk, folder / chunk_name(start, end, entry), entry))


class CheckpointStore:
    """The checkpoints of one run; its one writer holds the run directory's lock, readers need none.

    Args:
        directory: the run's `checkpoints` folder.
        keep: how many of the newest checkpoints stay, at least two, so that a damaged one has one before it.
    """

    newest_good: Path | None
    """The checkpoint that this store wrote or loaded last."""

    def __init__(self, directory: Path, keep: int = 2) -> None:
        self.directory = directory
        self.newest_good = None
        self._keep = max(2, keep)
        # newer than the loaded checkpoint: damaged, and no longer valid
        self._given_up: set[Path] = set()
        # chunks this store wrote or verified; others with the same rows may belong to a dropped checkpoint
        self._trusted: dict[tuple[int, int], Digest] = {}

    def steps(self) -> list[int]:
        """Steps of the checkpoints on disk, oldest first, good or damaged."""
        return sorted({place.step for place in self._places()})

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor | np.ndarray]],
        chunks: Sequence[Chunk] = (),
        metadata: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Path:
        """Write a checkpoint, then remove old ones.

        Checkpoints of later steps are removed too: a run that saves at a step has dropped them. One of the same
        step is replaced.

        Args:
            step: agent steps done.
            state: plain JSON values; floats come back bit-equal.
            tensors: by group (lower case, digits, underscores), then by name.
            chunks: all chunks the replay needs now, those on disk included.
            metadata: by group, text stored in the group's safetensors header.

        Returns:
            The checkpoint's folder.

        Raises:
            StorageError: the disk is full, read-only or failing; earlier checkpoints are untouched, nothing
                half-written stays, and saving may be tried again.
        """
        final = self._new_place(step)
        with storage_errors(final.path):
            self._clean()
            with self._all_or_nothing(final.path) as (folder, fresh):
                chunk_folder = _chunk_folder(self.directory)
                chunk_folder.mkdir(parents=True, exist_ok=True)
                entries = {(chunk.start, chunk.end): self._stored(chunk, fresh) for chunk in chunks}
                sync_directory(chunk_folder)
                folder.mkdir()
                _write_folder(folder, Manifest(step, {}, entries), state, tensors, metadata or {})
            self._trusted = entries
            self.newest_good = final.path
            sync_directory(self.directory)
            self._prune(final)
        return final.path

    def load_newest(self, on_damage: Callable[[str], None]) -> Checkpoint:
        """The newest undamaged checkpoint, chunks included.

        Args:
            on_damage: called with one line for each newer checkpoint that is damaged; names the file.

        Raises:
            CheckpointError: there is none; names the error of the newest.
        """
        damage: dict[Path, str] = {}
        places = self._places()
        while places:
            place = places.pop()
            try:
                checkpoint = _load(place)
            except CheckpointError as error:
                if not place.path.exists():  # the run's writer removed it and has newer ones
                    places = [place for place in self._places() if place.path not in damage]
                    continue
                damage[place.path] = str(error)
                on_damage(str(error))
            else:
                self._given_up = set(damage)
                self._trusted = dict(checkpoint.manifest.chunks)
                self.newest_good = checkpoint.path
                return checkpoint
        if damage:
            raise CheckpointError(f"no undamaged checkpoint in {self.directory}: {next(iter(damage.values()))}")
        raise CheckpointError(f"no checkpoint in {self.directory}")

    def _places(self) -> list[_Place]:
        """The checkpoints on disk, oldest first."""
        places = []
        for path in self.directory.glob("step-*"):
            match = _FOLDER.fullmatch(path.name)
            if match and path.is_dir():
                places.append(_Place(int(match[1]), int(match[2] or 1), path))
        return sorted(places)

    def _new_place(self, step: int) -> _Place:
        generation = max((place.generation for place in self._places() if place.step == step), default=0) + 1
        name = f"step-{step:012d}" + (f"-{generation}" if generation > 1 else "")
        return _Place(step, generation, self.directory / name)

    @contextmanager
    def _all_or_nothing(self, final: Path) -> Iterator[tuple[Path, list[Path]]]:
        """Where to write a checkpoint, and a list for other new files: renamed to `final`, or all removed."""
        folder = self.directory / f"{_TEMPORARY}{final.name}"
        fresh: list[Path] = []
        try:
            yield folder, fresh
            folder.rename(final)
        except BaseException:
            if not final.exists():  # it does if an interrupt came right after the rename
                _discard(folder, fresh)
            raise

    def _stored(self, chunk: Chunk, fresh: list[Path]) -> Digest:
        """Make sure that a chunk is on disk; new files are added to `fresh` before they are written."""
        folder = _chunk_folder(self.directory)
        rows = (chunk.start, chunk.end)
        known = self._trusted.get(rows)
        if known is not None:
            path = folder / chunk_name(*rows, known)
            if path.is_file() and path.stat().st_size == known.size:
                return known
        temporary = folder / f"{_TEMPORARY}{chunk.start}"
        fresh.append(temporary)
        with durable_file(temporary) as file:
            encode_arrays(chunk.arrays(), file)
        entry = file.digest()
        path = folder / chunk_name(*rows, entry)
        if not path.exists():
            fresh.append(path)
        temporary.replace(path)
        return entry

    def _prune(self, newest: _Place) -> None:
        """Remove files that the new checkpoint replaces."""
        past = [place for place in self._places() if place.step < newest.step and place.path not in self._given_up]
        kept = {newest.path, *(place.path for place in past[1 - self._keep :])}
        for place in self._places():
            if place.path not in kept:
                # under a temporary name first, so that a half-removed one is never taken for a damaged one
                place.path.rename(self.directory / f"{_TEMPORARY}{place.path.name}")
        sync_directory(self.directory)
        self._given_up.clear()
        self._clean()

    def _clean(self) -> None:
        """Remove temporary files, and chunks that no checkpoint lists."""
        folder = _chunk_folder(self.directory)
        for path in self.directory.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(path)
        wanted = {chunk_name(*rows, entry) for rows, entry in self._trusted.items()}
        for place in self._places():
            with suppress(CheckpointError):  # a damaged manifest needs nothing
                manifest = read_manifest(place.path / MANIFEST)
                wanted |= {chunk_name(*rows, entry) for rows, entry in manifest.chunks.items()}
        for path in (*folder.glob("rows-*.zst"), *folder.glob(f"{_TEMPORARY}*")):
            if path.name not in wanted:
                path.unlink()


def _group_file(name: str) -> str:
    return f"{name}.safetensors"


def _chunk_folder(directory: Path) -> Path:
    return directory / "chunks"


def _discard(folder: Path, files: list[Path]) -> None:
    """Free disk space after a failed save, for other programs and for the next try."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in files:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _read_chunk(path: Path, entry: Digest) -> dict[str, np.ndarray]:
    try:
        return decode_arrays(verify_file(path, entry))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _write_folder(
    folder: Path,
    manifest: Manifest,
    state: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor | np.ndarray]],
    metadata: Mapping[str, Mapping[str, str]],
) -> None:
    """Write a checkpoint's own files, the manifest last, and wait until they are on the disk."""
    contents = {_STATE: json.dumps(state, indent=1).encode() + b"\n"}
    for name, group in tensors.items():
        if not _GROUP.fullmatch(name):
            raise ValueError(f"group {name!r}: lower-case letters, digits and underscores only")
        plain = {key: _plain_tensor(value) for key, value in group.items()}
        contents[_group_file(name)] = safetensors.torch.save(plain, dict(metadata.get(name, {})) or None)
    for name, data in contents.items():
        with durable_file(folder / name) as file:
            file.write(data)
        manifest.files[name] = file.digest()
    with durable_file(folder / MANIFEST) as file:
        file.write(render_manifest(manifest))
    sync_directory(folder)


def _plain_tensor(value: Tensor | np.ndarray) -> Tensor:
    """A contiguous copy on the CPU that shares its memory with no other tensor, as safetensors wants it."""
    tensor = (
        torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape)) if isinstance(value, np.ndarray) else value
    )
    return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)


def _load(place: _Place) -> Checkpoint:
    """Compare every file of a checkpoint with its checksum."""
    path = place.path / MANIFEST
    try:
        manifest = read_manifest(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error)}") from error
    if manifest.step != place.step or _STATE not in manifest.files:
        raise CheckpointError(f"{path} is damaged: it belongs to step {manifest.step:,}")
    contents = {name: verify_file(place.path / name, entry) for name, entry in manifest.files.items()}
    folder = _chunk_folder(place.path.parent)
    for rows, entry in manifest.chunks.items():
        verify_file(folder / chunk_name(*rows, entry), entry)
    return Checkpoint(place.step, json.loads(contents[_STATE]), place.path, manifest)
