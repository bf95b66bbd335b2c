"""Damaged checkpoints: each is found by name, and the one before is used."""

import errno
import itertools
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from checkpoints import ROWS, check, load, save
from pixelq.errors import CheckpointError
from pixelq.run import checkpoint as module
from pixelq.run.checkpoint import CheckpointStore


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two checkpoints: 100, and 200 with a chunk more."""
    directory = tmp_path_factory.mktemp("pair")
    store = CheckpointStore(directory)
    save(store, 1, first=1)
    save(store, 2, first=1)
    return directory


def needed(directory):
    """Files of the newest, its chunks among them."""
    return [*sorted((directory / "step-000000000200").iterdir()), *sorted((directory / "chunks").iterdir())]


@contextmanager
def replaced(path, data):
    """A file with other contents (None: without the file) for the length of the block."""
    original = path.read_bytes()
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    yield
    path.write_bytes(original)


def expect_found(directory, path):
    """The damage in `path` is named, and the damaged checkpoint is not loaded."""
    damage = []
    store = CheckpointStore(directory)
    of_newest = path.parent.name in ("step-000000000200", "chunks")
    if path.name.startswith(f"rows-{ROWS:012d}"):  # both need it
        with pytest.raises(CheckpointError) as caught:
            store.load_newest(damage.append)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(damage) == 2
    else:
        assert store.load_newest(damage.append).step == (100 if of_newest else 200)
        assert len(damage) == of_newest
    assert all(str(path) in line and "\n" not in line for line in damage)


@pytest.mark.slow
def test_every_flipped_byte_of_every_file_is_found(pair):
    rng = np.random.default_rng(0)
    flipped = 0
    for path in needed(pair):
        original = path.read_bytes()
        for index in range(len(original)):
            damaged = bytearray(original)
            damaged[index] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            expect_found(pair, path)
            flipped += 1
        path.write_bytes(original)
    assert flipped > 800
    check(load(pair)[0], 2, first=1)


@pytest.mark.slow
def test_every_flipped_bit_of_a_manifest_is_found(pair):
    path = pair / "step-000000000200" / "manifest.json"
    original = path.read_bytes()
    for index, bit in itertools.product(range(0, len(original), 11), range(8)):
        damaged = bytearray(original)
        damaged[index] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
            module.read_manifest(path)
    path.write_bytes(original)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_truncated_missing_and_lengthened_files_are_found(pair, number):
    path = needed(pair)[number]
    original = path.read_bytes()
    shorter = [original[:length] for length in (0, 1, len(original) // 2, len(original) - 1)]
    longer = [original + b"\n", original + b"\0" * 4096, original * 2, b" " + original, os.urandom(len(original))]
    for data in (*shorter, *longer, None):
        with replaced(path, data):
            expect_found(pair, path)
    check(load(pair)[0], 2, first=1)


@pytest.mark.parametrize("text", ["[]", "7", '"x"', "null", "{}", '{"blake2b": 1}', "[" * 100_000, "1" * 100_000])
def test_a_manifest_of_another_kind_is_damage(pair, text):
    path = pair / "step-000000000200" / "manifest.json"
    with replaced(path, text.encode()):
        expect_found(pair, path)


def test_a_manifest_of_another_step_or_format_is_damage(pair, monkeypatch):
    old, new = (pair / f"step-000000000{number}00" / "manifest.json" for number in (1, 2))
    with replaced(new, old.read_bytes()):
        expect_found(pair, new)
    monkeypatch.setattr("pixelq.run.manifest._FORMAT", 2)
    data = module.render_manifest(module.Manifest(200))
    monkeypatch.undo()
    with replaced(new, data):
        assert load(pair)[1] == [f"{new} has format 2: this pixelq reads format 1"]


def test_swapped_files_are_found(pair):
    chunks = sorted((pair / "chunks").iterdir())
    with replaced(chunks[1], chunks[0].read_bytes()):
        expect_found(pair, chunks[1])


def test_a_folder_in_a_files_place_is_damage(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    state = save(store, 2) / "state.json"
    state.unlink()
    state.mkdir()
    checkpoint, damage = load(tmp_path)
    assert checkpoint.step == 100
    assert str(state) in damage[0]


def test_what_is_damaged_after_loading_is_not_used(tmp_path):
    save(CheckpointStore(tmp_path), 1)
    checkpoint, _ = load(tmp_path)
    for path in [*(tmp_path / "chunks").iterdir(), checkpoint.path / "agent.safetensors"]:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"agent\.safetensors is damaged"):
        checkpoint.tensors("agent")
    with pytest.raises(CheckpointError, match=r"rows-.*\.zst is damaged"):
        next(checkpoint.chunks).arrays()


def test_a_chunk_that_lies_about_itself_allocates_nothing(tmp_path, monkeypatch):
    """Checksums right, contents wrong: as if another program had written it."""
    import zstandard

    huge = b'[["a","|u1",[1000000000000000]]]'
    objects = b'[["a","|O",[0]]]'
    for header in (huge, objects, b"[]]", b'[["a","|u1",["x"]]]', b'[["a"]]'):
        payload = len(header).to_bytes(8, "little") + header
        for data in (payload, payload[:4], payload + b"more", (2**63).to_bytes(8, "little")):
            with pytest.raises(ValueError):
                module.decode_arrays(zstandard.compress(data))
    with pytest.raises(ValueError, match="not a chunk"):
        module.decode_arrays(b"not zstd at all")


def test_a_file_that_cannot_be_read_is_named(pair, monkeypatch):
    real = Path.read_bytes

    def refuse(path):
        if path.parent.name == "step-000000000200" and path.name == refused:
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    for refused in ("state.json", "manifest.json"):
        checkpoint, damage = load(pair)
        assert checkpoint.step == 100
        assert damage == [f"{pair}/step-000000000200/{refused} cannot be read: Input/output error"]
