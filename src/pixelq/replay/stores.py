"""The choice of a run's frame store, its memory, and its construction."""

import torch

from pixelq.config import ATARI_SHAPE, ObsShape, StoreName
from pixelq.memory import format_bytes
from pixelq.replay.frames import DeviceFrames, FrameStore, RamFrames
from pixelq.replay.lz4_frames import BLOCK_BREAKOUT, Lz4Frames, block_busiest, block_most

__all__ = ["choose_store", "describe_store", "make_frames"]

_DEVICE_SHARE = 0.5  # of a GPU's free memory that `auto` gives to raw planes


def choose_store(store: StoreName, transitions: int, device: torch.device, shape: ObsShape = ATARI_SHAPE) -> StoreName:
    """Resolve `auto`: the GPU's memory if raw planes take less than half of its free memory, else LZ4.

    Args:
        store: the config's wish; `device` on a CPU, as of a run that began on a GPU, means `auto`.
        transitions: the memory's capacity.
        device: where learning happens.
        shape: of the observations.

    Returns:
        `lz4`, `ram` or `device`.
    """
    on_gpu = device.type == "cuda"
    if store in ("lz4", "ram") or (store == "device" and on_gpu):
        return store
    if on_gpu and transitions * shape.picture_bytes <= _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "lz4"


def make_frames(
    store: StoreName, slots: int, device: torch.device, kernels: bool = True, shape: ObsShape = ATARI_SHAPE
) -> FrameStore:
    """A frame store by its name.

    Args:
        store: `lz4`, `ram` or `device`.
        slots: planes held.
        device: where learning happens, for the store that lives there.
        kernels: let kernels read LZ4 blocks where there are any.
        shape: of the observations.

    Raises:
        PixelqError: not enough free memory.
    """
    if store == "lz4":
        return Lz4Frames(slots, kernels, shape)
    if store == "ram":
        return RamFrames(slots, shape)
    if store == "device":
        return DeviceFrames(slots, device, shape)
    raise ValueError(f"store {store!r}: choose one first")


def describe_store(store: StoreName, slots: int, beside: int, shape: ObsShape = ATARI_SHAPE) -> str:
    """A store's storage and memory, in words.

    Args:
        store: `lz4`, `ram` or `device`.
        slots: planes held.
        beside: bytes a slot takes in host memory beside its plane.
        shape: of the observations.
    """

    def size(plane: int) -> str:
        return format_bytes(slots * (plane + beside))

    most = size(block_most(shape))
    if store == "lz4" and shape.picture != ATARI_SHAPE.picture:
        return f"pictures as LZ4 blocks in host memory, at most {most}, far less if they are plain"
    if store == "lz4":
        games = f"{size(BLOCK_BREAKOUT)} for a plain game (Breakout), {size(block_busiest(shape))} for the busiest"
        return f"planes as LZ4 blocks in host memory, when full about {games}, at most {most}"
    if store == "ram":
        return f"raw planes in host memory, {size(shape.picture_bytes)} when full"
    return f"raw planes in the GPU's memory, {format_bytes(slots * shape.picture_bytes)} at once"
