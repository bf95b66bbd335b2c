"""Frame stores: storage of a replay buffer's planes. One slot holds a picture: 1 plane or 3."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.config import ATARI_SHAPE, ObsShape
from pixelq.device import send, to_device
from pixelq.memory import require_memory
from pixelq.native.replay import UnreadPlanes

__all__ = ["NO_PLANE", "DeviceFrames", "FrameStore", "RamFrames"]

NO_PLANE = -1  # the slot number of a plane of zeros


class FrameStore(Protocol):
    """Planes by slot number; writing a slot again replaces its plane."""

    def write(self, first_slot: int, planes: NDArray[np.uint8]) -> None:
        """Store pictures [K, 84, 84], or [K, 3, H, W] in colour, in the slots `first_slot … first_slot + K − 1`.

        Slots are written in their order, from any first one on; after the last comes slot 0 again.
        """

    def read(self, slots: NDArray[np.int64]) -> Tensor:
        """The planes of slots [...], each written before or `NO_PLANE`, as a new tensor [..., 84, 84] uint8."""

    def unread(self, slots: NDArray[np.int64]) -> UnreadPlanes | None:
        """The same planes for kernels that read them themselves; None if there are none."""


class RamFrames:
    """A raw uint8 array in host memory, on Atari 7,056 bytes a slot.

    Args:
        slots: number of slots; memory is claimed as they are first written.
        shape: of the observations that pictures make up.

    Raises:
        PixelqError: not enough free memory.
    """

    def __init__(self, slots: int, shape: ObsShape = ATARI_SHAPE) -> None:
        require_memory(slots * shape.picture_bytes, "the replay buffer")
        self._planes = np.empty((slots + 1, *shape.picture), np.uint8)
        self._planes[NO_PLANE] = 0  # the last one

    def write(self, first_slot: int, planes: NDArray[np.uint8]) -> None:
        """Store pictures [K, 84, 84], or [K, 3, H, W] in colour, in the slots from `first_slot` on."""
        self._planes[first_slot : first_slot + len(planes)] = planes

    def read(self, slots: NDArray[np.int64]) -> Tensor:
        """The planes of slots [...] as a new tensor [..., 84, 84] on the CPU."""
        return torch.from_numpy(self._planes[slots])

    def unread(self, slots: NDArray[np.int64]) -> UnreadPlanes | None:
        """None: they are ready to be read."""
        return None


class DeviceFrames:
    """A raw uint8 tensor on the device that learns; planes are gathered there and stay there.

    Args:
        slots: number of slots; a GPU's memory is claimed at once.
        device: where.
        shape: of the observations that pictures make up.

    Raises:
        PixelqError: not enough free memory.
    """

    def __init__(self, slots: int, device: torch.device, shape: ObsShape = ATARI_SHAPE) -> None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        require_memory((slots + 1) * shape.picture_bytes, f"the replay buffer on {device.type}", free)
        self._planes = torch.empty((slots + 1, *shape.picture), dtype=torch.uint8, device=device)
        self._planes[slots] = 0
        self.no_plane = slots
        """The slot of a plane of zeros, in `gather`."""

    def write(self, first_slot: int, planes: NDArray[np.uint8]) -> None:
        """Store pictures [K, 84, 84], or [K, 3, H, W] in colour, in the slots from `first_slot` on."""
        send(planes, self._planes[first_slot : first_slot + len(planes)])

    def read(self, slots: NDArray[np.int64]) -> Tensor:
        """The planes of slots [...] as a new tensor [..., 84, 84] on the device; waits for nothing there."""
        return self.gather(to_device(np.where(slots == NO_PLANE, self.no_plane, slots), self._planes.device))

    def unread(self, slots: NDArray[np.int64]) -> UnreadPlanes | None:
        """None: they are there already."""
        return None

    def gather(self, slots: Tensor) -> Tensor:
        """The same for slots [...] int64 on the device, `no_plane` among them."""
        return self._planes.index_select(0, slots.reshape(-1)).view(*slots.shape, *self._planes.shape[1:])
