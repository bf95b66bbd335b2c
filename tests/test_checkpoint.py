"""Checkpoints: what goes in comes out, and what stays on disk."""

import shutil

import numpy as np
import pytest
import safetensors
import torch

from checkpoints import check, chunk, files, load, save
from pixelq.errors import CheckpointError
from pixelq.run import checkpoint as module
from pixelq.run.checkpoint import CheckpointStore, Chunk

TENSORS = {
    "bfloat16": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "float64": torch.tensor([0.1, float("nan"), float("inf"), -0.0], dtype=torch.float64),
    "transposed": torch.arange(12.0).reshape(3, 4).T,
    "strided": torch.arange(12)[::3],
    "nothing": torch.empty(0, 84, 84, dtype=torch.uint8),
    "one": torch.tensor(7),
    "flag": torch.tensor([True, False]),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
}
ARRAYS = {
    "uint8": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "backwards": np.arange(5, dtype=np.int64)[::-1],
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "bool": np.array([True, False]),
    "scalar": np.array(2.5),
    "nothing": np.zeros((3, 0), np.float32),
    "int32": np.array([-1, 2], np.int32),
    "uint64": np.array([2**64 - 1], np.uint64),
}


def test_tensors_come_back_bit_equal(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(0, {}, {"agent": TENSORS, "envs": ARRAYS})
    checkpoint, _ = load(tmp_path)
    tensors, arrays = checkpoint.tensors("agent"), checkpoint.tensors("envs")
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert tensors[name].is_contiguous()
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(tensors[name].reshape(-1).view(torch.uint8), raw), name
    for name, array in ARRAYS.items():
        back = arrays[name].numpy()
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert np.array_equal(back, array)
        back[...] = 0  # writable, its own memory


def test_tensors_that_share_memory_are_stored_each(tmp_path):
    base = torch.arange(6.0)
    CheckpointStore(tmp_path).save(0, {}, {"agent": {"all": base, "again": base, "part": base[2:4]}})
    tensors = load(tmp_path)[0].tensors("agent")
    assert torch.equal(tensors["again"], base)
    assert torch.equal(tensors["part"], base[2:4])


def test_state_comes_back_exactly(tmp_path):
    state = {"pi": 0.1 + 0.2, "big": 2**127 + 1, "none": None, "nested": {"list": [1, 2.5, "é"]}, "nan": float("nan")}
    CheckpointStore(tmp_path).save(3, state, {})
    back = load(tmp_path)[0].state
    assert back.pop("nan") != state.pop("nan")
    assert back == state


def test_metadata_is_in_the_file_itself(tmp_path):
    path = CheckpointStore(tmp_path).save(5, {}, {"agent": TENSORS}, (), {"agent": {"pixelq": '{"é": 1}'}})
    with safetensors.safe_open(path / "agent.safetensors", "pt") as file:
        assert file.metadata() == {"pixelq": '{"é": 1}'}


def test_chunks_come_back_and_are_writable(tmp_path):
    CheckpointStore(tmp_path).save(0, {}, {}, [Chunk(5, 9, lambda: ARRAYS)])
    (loaded,) = load(tmp_path)[0].chunks
    assert (loaded.start, loaded.end) == (5, 9)
    arrays = loaded.arrays()
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert np.array_equal(arrays[name], array)
        arrays[name][...] = 0


def test_the_same_contents_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save(CheckpointStore(tmp_path / name), 2)
    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    assert list(first.values()) == list(second.values())


@pytest.mark.parametrize("values", [np.array(["text"]), np.array([object()]), np.array(["2026"], "M8[Y]")])
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(tmp_path, values):
    store = CheckpointStore(tmp_path)
    save(store, 0)
    before = files(tmp_path)
    with pytest.raises(TypeError):
        store.save(1, {}, {}, [Chunk(0, 1, lambda: {"a": values})])
    with pytest.raises(TypeError):
        store.save(1, {}, {"agent": {"a": values}})
    with pytest.raises(TypeError):
        store.save(1, {"a": {1, 2}}, {})
    with pytest.raises(ValueError, match="lower-case"):
        store.save(1, {}, {"../agent": {}})
    assert files(tmp_path) == before


def test_missing_things_are_one_line(tmp_path):
    with pytest.raises(CheckpointError, match=f"^no checkpoint in {tmp_path}/none$"):
        load(tmp_path / "none")
    save(CheckpointStore(tmp_path), 1)
    with pytest.raises(CheckpointError, match=r"step-000000000100 has no tensors named 'learner'$"):
        load(tmp_path)[0].tensors("learner")


def test_frames_that_mostly_repeat_take_little_room(tmp_path):
    rng = np.random.default_rng(0)
    planes = np.tile(rng.integers(0, 256, (1, 84, 84), np.uint8), (5_000, 1, 1))
    for row, (y, x) in enumerate(rng.integers(0, 80, (5_000, 2))):
        planes[row, y : y + 3, x : x + 2] = 255  # a ball on a still background
    CheckpointStore(tmp_path).save(0, {}, {}, [Chunk(0, 5_000, lambda: {"planes": planes})])
    (path,) = (tmp_path / "chunks").iterdir()
    assert path.stat().st_size < 5_000 * 100
    (loaded,) = load(tmp_path)[0].chunks
    assert np.array_equal(loaded.arrays()["planes"], planes)


def test_the_newest_are_kept_and_only_their_chunks(tmp_path):
    store, asked = CheckpointStore(tmp_path, keep=3), []
    for number in range(7):
        save(store, number, first=max(0, number - 1), asked=asked)
    assert store.steps() == [400, 500, 600]
    assert asked == list(range(7))  # each chunk was made and written once
    starts = [int(path.name.split("-")[1]) for path in sorted((tmp_path / "chunks").iterdir())]
    assert starts == [30, 40, 50, 60]
    check(load(tmp_path)[0], 6, first=5)
    shutil.rmtree(tmp_path / "step-000000000600")
    shutil.rmtree(tmp_path / "step-000000000500")
    check(load(tmp_path)[0], 4, first=3)


def test_at_least_two_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    for number in range(4):
        save(store, number)
    assert store.steps() == [200, 300]


def test_a_resumed_writer_uses_the_chunks_it_verified(tmp_path):
    save(CheckpointStore(tmp_path), 3)
    store, asked = CheckpointStore(tmp_path), []
    store.load_newest(pytest.fail)
    save(store, 5, asked=asked)
    assert asked == [4, 5]
    check(load(tmp_path)[0], 5)


def test_chunks_of_a_future_that_was_given_up_are_written_anew(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    save(store, 2)
    damaged = tmp_path / "step-000000000200" / "state.json"
    damaged.write_bytes(b"")
    resumed = CheckpointStore(tmp_path)
    assert resumed.load_newest(lambda line: None).step == 100
    # played on differently: chunk 2 has other rows now
    resumed.save(200, {"number": 2}, {"agent": {"w": torch.arange(4.0) * 2}}, [chunk(0), chunk(1), chunk(2, salt=9)])
    checkpoint, damage = load(tmp_path)
    assert damage == []
    assert list(checkpoint.chunks)[2].arrays()["planes"][0, 0, 0] == 11
    assert len(list((tmp_path / "chunks").iterdir())) == 3


def test_a_chunk_that_vanished_is_written_again(tmp_path):
    store, asked = CheckpointStore(tmp_path), []
    save(store, 1)
    sorted((tmp_path / "chunks").iterdir())[0].unlink()
    save(store, 2, asked=asked)
    assert asked == [0, 2]
    check(load(tmp_path)[0], 2)


def test_the_same_step_again_replaces(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    for salt in (1, 2, 3):
        fresh = CheckpointStore(tmp_path)  # repeats after a resume
        fresh.load_newest(pytest.fail)
        fresh.save(200, {"number": 2}, {"agent": {"w": torch.full((2,), float(salt))}})
        assert CheckpointStore(tmp_path).steps() == [100, 200]
        assert load(tmp_path)[0].tensors("agent")["w"][0] == salt
    assert len(list(tmp_path.glob("step-*"))) == 2


def test_later_ones_go_when_a_resumed_run_saves(tmp_path):
    store = CheckpointStore(tmp_path, keep=4)
    for number in range(4):
        save(store, number)
    for number in (2, 3):
        (tmp_path / f"step-000000000{number}00" / "state.json").write_bytes(b"{}")
    resumed = CheckpointStore(tmp_path, keep=4)
    assert resumed.load_newest(lambda line: None).step == 100
    assert resumed.steps() == [0, 100, 200, 300]  # reading removes nothing
    resumed.save(250, {}, {})
    assert resumed.steps() == [0, 100, 250]


def test_a_damaged_one_does_not_count_among_the_kept(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    save(store, 2)
    (tmp_path / "step-000000000200" / "state.json").write_bytes(b"{}")
    resumed = CheckpointStore(tmp_path)
    resumed.load_newest(lambda line: None)
    save(resumed, 3)
    assert resumed.steps() == [100, 300]


def test_readers_touch_nothing_and_writers_clean_up(tmp_path):
    save(CheckpointStore(tmp_path), 1)
    wanted = files(tmp_path)
    for name in (".tmp-step-000000000200", ".tmp-step-000000000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.safetensors").write_bytes(b"half")
    (tmp_path / "chunks" / ".tmp-20").write_bytes(b"half")
    (tmp_path / "chunks" / "rows-000000000020-000000000030-0badcafe.zst").write_bytes(b"nobody's")
    (tmp_path / "chunks" / "notes.txt").write_bytes(b"somebody's")
    before = files(tmp_path)
    checkpoint, damage = load(tmp_path)
    check(checkpoint, 1)
    assert damage == []
    assert files(tmp_path) == before
    store = CheckpointStore(tmp_path)
    store.load_newest(pytest.fail)
    path = store.save(150, {}, {}, [chunk(0), chunk(1)])
    left = {file for file in files(tmp_path) if path not in file.parents}
    assert left == {*wanted, tmp_path / "chunks" / "notes.txt"}


def test_a_reader_looks_again_if_the_writer_removed_what_it_was_reading(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    real = module._load

    def late(place):
        if place.step == 100:
            for number in (2, 3):
                save(store, number)
        return real(place)

    monkeypatch.setattr(module, "_load", late)
    checkpoint, damage = load(tmp_path)
    check(checkpoint, 3)
    assert damage == []
