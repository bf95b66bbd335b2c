"""Which frame store a run takes, what that takes, and making it."""

import torch

from pixelq.config import StoreName
from pixelq.replay.frames import PLANE_BYTES, DeviceFrames, FrameStore, RamFrames
from pixelq.replay.lz4_frames import BLOCK_BREAKOUT, BLOCK_BUSIEST, BLOCK_MOST, Lz4Frames
from pixelq.replay.memory import format_bytes

__all__ = ["choose_store", "describe_store", "make_frames"]

_DEVICE_SHARE = 0.5  # of a GPU's free memory that `auto` gives to raw planes


def choose_store(store: StoreName, transitions: int, device: torch.device) -> StoreName:
    """Decide what `auto` means: a GPU's own memory if raw planes take less than half of what is free there, else LZ4.

    Args:
        store: the config's wish; `device` on a CPU, as of a run that began on a GPU, means `auto`.
        transitions: the memory's capacity.
        device: where learning happens.

    Returns:
        `lz4`, `ram` or `device`.
    """
    on_gpu = device.type == "cuda"
    if store in ("lz4", "ram") or (store == "device" and on_gpu):
        return store
    if on_gpu and transitions * PLANE_BYTES <= _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "lz4"


def make_frames(store: StoreName, slots: int, device: torch.device, kernels: bool = True) -> FrameStore:
    """A frame store by its name.

    Args:
        store: `lz4`, `ram` or `device`.
        slots: planes held.
        device: where learning happens, for the store that lives there.
        kernels: let kernels read LZ4 blocks where there are any.

    Raises:
        PixelqError: not enough free memory.
    """
    if store == "lz4":
        return Lz4Frames(slots, kernels)
    if store == "ram":
        return RamFrames(slots)
    if store == "device":
        return DeviceFrames(slots, device)
    raise ValueError(f"store {store!r}: choose one first")


def describe_store(store: StoreName, slots: int, beside: int) -> str:
    """What a store keeps where and how much memory that takes, in words.

    Args:
        store: `lz4`, `ram` or `device`.
        slots: planes held.
        beside: bytes a slot takes in host memory beside its plane.
    """

    def size(plane: int) -> str:
        return format_bytes(slots * (plane + beside))

    if store == "lz4":
        games = f"{size(BLOCK_BREAKOUT)} when full of Breakout, {size(BLOCK_BUSIEST)} of the busiest game"
        return f"planes as LZ4 blocks in host memory, about {games}, at most {size(BLOCK_MOST)}"
    if store == "ram":
        return f"raw planes in host memory, {size(PLANE_BYTES)} when full"
    return f"raw planes in the GPU's memory, {format_bytes(slots * PLANE_BYTES)} at once"
