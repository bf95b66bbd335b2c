"""Frame stores: planes come back as they were written, what they take, and which one a run gets."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naive_replay import STORES, make_buffer
from no_waiting import no_waiting_for_the_gpu
from pixelq import memory
from pixelq.config import ObsShape
from pixelq.errors import PixelqError
from pixelq.memory import available_memory, format_bytes, require_memory
from pixelq.replay import lz4_frames
from pixelq.replay.frames import NO_PLANE, DeviceFrames, RamFrames
from pixelq.replay.lz4_frames import Lz4Frames, block_most
from pixelq.replay.stores import choose_store, describe_store, make_frames

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(lz4_frames, "_SEGMENT", 16)


def planes_of(rng, count, kind):
    """Planes that compress well, badly, or to nearly nothing."""
    if kind == "noise":
        return rng.integers(0, 256, (count, 84, 84), dtype=np.uint8)
    planes = np.zeros((count, 84, 84), np.uint8)
    if kind == "sparse":
        planes[np.arange(count), rng.integers(0, 84, count), rng.integers(0, 84, count)] = rng.integers(1, 256, count)
    return planes


@pytest.mark.parametrize("store", STORES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
@pytest.mark.usefixtures("short_segments")
@pytest.mark.slow
def test_planes_come_back_as_they_were_written_last(store, data):
    slots = data.draw(st.integers(1, 70))
    frames, naive = make_frames(store, slots, CPU), {}
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    at = data.draw(st.integers(0, slots - 1))  # a restored memory begins anywhere
    for _ in range(data.draw(st.integers(1, 12))):
        planes = planes_of(
            rng, min(data.draw(st.integers(1, 40)), slots - at), data.draw(st.sampled_from(["noise", "sparse", "flat"]))
        )
        frames.write(at, planes)
        naive |= {at + index: plane for index, plane in enumerate(planes)}
        at = (at + len(planes)) % slots
        held = np.array([*naive, NO_PLANE])
        for wanted in (held, rng.choice(held, (5, 4))):
            got = frames.read(wanted)
            assert got.shape == (*wanted.shape, 84, 84)
            assert got.dtype == torch.uint8
            for slot, plane in zip(wanted.flat, got.reshape(-1, 84, 84).numpy(), strict=True):
                np.testing.assert_array_equal(plane, naive.get(int(slot), 0))


@pytest.mark.parametrize("store", STORES)
def test_what_was_read_is_the_readers_own(store):
    frames = make_frames(store, 8, CPU)
    frames.write(0, np.full((8, 84, 84), 7, np.uint8))
    frames.read(np.array([3, NO_PLANE])).fill_(9)
    assert frames.read(np.array([3, NO_PLANE]))[:, 0, 0].tolist() == [7, 0]


@pytest.mark.parametrize("store", STORES)
def test_planes_may_lie_anywhere_in_memory(store):
    stacks = np.random.default_rng(0).integers(0, 256, (6, 4, 84, 84), dtype=np.uint8)
    frames = make_frames(store, 6, CPU)
    frames.write(0, stacks[:, -1])
    stacks_before = stacks.copy()
    stacks[:] = 0
    np.testing.assert_array_equal(frames.read(np.arange(6)).numpy(), stacks_before[:, -1])


def test_lz4_refuses_slots_out_of_order():
    frames = Lz4Frames(100)
    frames.write(40, np.zeros((10, 84, 84), np.uint8))
    for slot in (40, 49, 51, 0):
        with pytest.raises(ValueError, match=f"slot {slot} does not follow: slot 50 is next"):
            frames.write(slot, np.zeros((1, 84, 84), np.uint8))


@pytest.mark.usefixtures("short_segments")
def test_lz4_keeps_to_its_bound_and_frees_what_is_overwritten():
    frames, rng = Lz4Frames(64), np.random.default_rng(0)
    for _ in range(3):
        for at in range(0, 64, 8):
            frames.write(at, planes_of(rng, 8, "noise"))
            held = {id(s): len(s.arena) + 6 * 16 for s in [*frames._sealed, frames._open] if s is not None}
            assert sum(held.values()) <= (64 + 16) * block_most(
                ObsShape()
            )  # a segment more than full while one is replaced
    for at in range(0, 64, 8):
        frames.write(at, planes_of(rng, 8, "sparse"))
    assert sum(len(s.arena) for s in frames._sealed) < 64 * 100


@pytest.mark.slow
def test_lz4_memory_is_flat_once_it_is_full():
    def resident():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    slots, rng = 12 * lz4_frames._SEGMENT, np.random.default_rng(0)
    # blocks of ever-changing size, about 0.5 kB
    scenes = [(planes_of(rng, 512, "noise") < 4 + 2 * (k % 3)).astype(np.uint8) for k in range(6)]
    frames, before, sizes = Lz4Frames(slots), resident(), []
    for lap in range(5):
        for at in range(0, slots, 512):
            frames.write(at, scenes[(at // 512 + lap) % 6])
        sizes.append(resident() - before)
    payload = sum(len(s.arena) for s in frames._sealed)
    assert sizes[0] < 1.1 * payload + 6 * slots
    assert max(sizes[1:]) < sizes[0] + 0.15 * payload  # one segment of 12, and noise


# free memory


@pytest.mark.parametrize("store", STORES)
def test_more_than_the_machine_has_is_refused_before_anything_is_allocated(store):
    pattern = r"the replay buffer( on cpu)? needs \d+\.\d GB but .* are free: lower --replay\.capacity"
    with pytest.raises(PixelqError, match=pattern):
        make_frames(store, 10**12, CPU)


def test_what_is_needed_and_what_is_free_is_told():
    with pytest.raises(PixelqError, match=r"the replay buffer needs 7056000\.0 GB but .* lower --replay\.capacity"):
        RamFrames(10**12)
    require_memory(1, "a byte")
    with pytest.raises(PixelqError, match="a thing needs 2 MB but 1 MB are free"):
        require_memory(2_000_000, "a thing", 1_000_000)


def test_lz4_needs_room_for_the_busiest_game(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1_000_000_000)
    Lz4Frames(400_000)
    with pytest.raises(PixelqError, match=r"needs 1\.2 GB but 1\.0 GB are free"):
        Lz4Frames(600_000)


@pytest.mark.usefixtures("short_segments")
def test_lz4_stops_growing_when_memory_runs_out_but_not_when_full(monkeypatch):
    frames, planes = Lz4Frames(48), np.zeros((16, 84, 84), np.uint8)
    frames.write(0, planes)
    free = [10]
    monkeypatch.setattr(memory, "available_memory", lambda: free[0])
    with pytest.raises(PixelqError, match="the next part of the replay buffer needs 0 MB but 0 MB are free"):
        frames.write(16, planes)
    free[0] = 10**9
    frames.write(16, planes)
    frames.write(32, planes)
    free[0] = 10
    frames.write(0, planes)


def test_free_memory_is_known_here():
    assert available_memory() is None or available_memory() > 10**6


def test_sizes_are_told_as_people_say_them():
    assert [format_bytes(n) for n in (0, 29_100_000, 7_056_000_000)] == ["0 MB", "29 MB", "7.1 GB"]


# which one


def test_auto_is_lz4_on_a_cpu_and_the_gpus_own_memory_where_there_is_room(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (15_000_000_000, 16_000_000_000))
    assert choose_store("auto", 1_000_000, CPU) == "lz4"
    assert choose_store("auto", 1_000_000, GPU) == "device"  # 7.06 of 15 GB
    assert choose_store("auto", 1_100_000, GPU) == "lz4"
    assert [choose_store(name, 10**9, GPU) for name in STORES] == list(STORES)
    assert [choose_store(name, 10**3, CPU) for name in STORES] == ["ram", "lz4", "lz4"]  # a run of a GPU, gone on here


def test_a_gpu_without_room_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**6, 10**7))
    with pytest.raises(PixelqError, match="the replay buffer on cuda needs 7 MB but 1 MB are free"):
        DeviceFrames(1_000, GPU)


def test_a_store_must_be_chosen_first():
    with pytest.raises(ValueError, match="choose one first"):
        make_frames("auto", 10, CPU)


def test_a_memory_says_what_it_takes():
    assert make_buffer(1_000_000, 8, 1, "lz4").describe() == (
        "planes as LZ4 blocks in host memory, "
        "when full about 459 MB for a plain game (Breakout), 2.0 GB for the busiest, at most 7.1 GB"
    )
    text = make_buffer(1_000_000, 8, 1, "lz4", "prioritised").describe()
    assert "when full about 491 MB for a plain game" in text
    assert make_buffer(100_000, 8, 1, "ram").describe() == "raw planes in host memory, 707 MB when full"
    assert describe_store("device", 1_000_000, 9) == "raw planes in the GPU's memory, 7.1 GB at once"


@pytest.mark.gpu
def test_planes_stay_on_the_gpu():
    frames = DeviceFrames(100, GPU)
    planes = planes_of(np.random.default_rng(0), 100, "noise")
    frames.write(0, planes)
    torch.cuda.synchronize()
    slots = np.array([[3, NO_PLANE], [99, 3]])
    with no_waiting_for_the_gpu():
        got = frames.read(slots)
        frames.write(0, planes[:8])
    assert got.device.type == "cuda"
    np.testing.assert_array_equal(got.cpu().numpy(), np.where((slots < 0)[..., None, None], 0, planes[slots]))
