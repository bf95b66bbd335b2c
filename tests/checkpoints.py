"""Small checkpoints that the tests of checkpoints save, load and compare."""

import numpy as np
import torch

from pixelq.run.checkpoint import CheckpointStore, Chunk

ROWS = 10  # rows a chunk


def chunk(number, asked=None, salt=0):
    def arrays():
        if asked is not None:
            asked.append(number)
        planes = np.full((ROWS, 4, 4), number + salt, np.uint8)
        return {"planes": planes, "rewards": np.linspace(0, number, ROWS, dtype=np.float32)}

    return Chunk(number * ROWS, (number + 1) * ROWS, arrays)


def save(store, number, first=0, asked=None, salt=0):
    """Checkpoint `number` at step 100 x number, with the chunks from `first` to `number`."""
    weights = torch.arange(4.0) * number + salt
    chunks = [chunk(n, asked, salt) for n in range(first, number + 1)]
    return store.save(100 * number, {"number": number}, {"agent": {"w": weights}}, chunks)


def load(directory, keep=2):
    """The newest good checkpoint of a fresh store, and the lines about damaged ones."""
    damage = []
    return CheckpointStore(directory, keep).load_newest(damage.append), damage


def files(directory):
    """Every file under a folder with its bytes."""
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def check(checkpoint, number, first=0, salt=0):
    """Checkpoint `number` is exactly as `save` made it."""
    assert checkpoint.step == 100 * number
    assert checkpoint.state == {"number": number}
    assert torch.equal(checkpoint.tensors("agent")["w"], torch.arange(4.0) * number + salt)
    found = list(checkpoint.chunks)
    assert [(c.start, c.end) for c in found] == [(n * ROWS, (n + 1) * ROWS) for n in range(first, number + 1)]
    for n, loaded in zip(range(first, number + 1), found, strict=True):
        expected, arrays = chunk(n, salt=salt).arrays(), loaded.arrays()
        assert set(arrays) == set(expected)
        assert all(np.array_equal(arrays[key], expected[key]) for key in expected)
