"""Devices by name, and how arrays and random numbers get to them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.errors import PixelqError

__all__ = [
    "generator_on",
    "has_fast_bfloat16",
    "resolve_device",
    "restore_generator_on",
    "send",
    "tiny_as_zero",
    "to_device",
]

_WITH_CHANCE = ("cuda", "mps")  # devices with their own random generators


def resolve_device(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: `cpu`, `cuda`, `mps` (an Apple GPU), or `auto`: CUDA's GPU if there is one, else the CPU.

    Raises:
        PixelqError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda", "mps"):
        raise PixelqError(f'--device {name}: must be "auto", "cpu", "cuda" or "mps"')
    if name == "cuda" and not torch.cuda.is_available():
        raise PixelqError("--device cuda: torch finds no CUDA GPU here; use --device cpu or auto")
    if name == "mps" and not torch.backends.mps.is_available():
        why = (
            "this macOS has no GPU that it can use" if torch.backends.mps.is_built() else "it is built without Apple's"
        )
        raise PixelqError(f"--device mps: torch finds no Apple GPU here, {why}; use --device cpu or auto")
    return torch.device(name)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch's bfloat16 is the faster one there: a GPU of today, or a CPU with AMX.

    By AVX512-BF16 alone its layers take one and a half times as long as in float32, and many times beside a busy
    process.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":  # not measured
        return False
    return bool(torch.cpu._is_amx_tile_supported())


@contextmanager
def tiny_as_zero() -> Iterator[None]:
    """Let a CPU treat float32 denormals as zero, in this thread and in its later threads.

    If gradients become zero, their running means decay to denormals, which are many times slower.
    """
    if float(np.float32(1e-40) * np.float32(1)) == 0:  # other code has requested it
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def to_device(array: NDArray[np.generic] | Tensor, device: torch.device) -> Tensor:
    """A host array on a device, with the same shape and type; on a CPU it shares the memory.

    A copy to a CUDA GPU uses pinned memory, so that nothing waits for it; PyTorch does not reuse that memory
    before the copy is done. Apple GPUs have no pinned memory, so this waits for the copy.
    """
    return _within_reach(array, device).to(device, non_blocking=device.type != "mps")


def send(array: NDArray[np.generic] | Tensor, to: Tensor) -> None:
    """Copy an array into a tensor of its shape, as `to_device` does."""
    to.copy_(_within_reach(array, to.device), non_blocking=to.device.type != "mps")


def _within_reach(array: NDArray[np.generic] | Tensor, device: torch.device) -> Tensor:
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(array)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A random generator for a device, seeded from a CPU generator: a new one on a GPU, else the same one.

    Numbers drawn on a GPU need no copy, but depend on the device.
    """
    if device.type not in _WITH_CHANCE:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def restore_generator_on(generator: torch.Generator, state: Tensor) -> None:
    """Set a random generator to a saved state.

    A state from another kind of device becomes the seed.

    Args:
        generator: on any device.
        state: [S] uint8, from `torch.Generator.get_state`.
    """
    if state.shape == generator.get_state().shape:
        generator.set_state(state.cpu())
        return
    digest = hashlib.blake2b(state.cpu().numpy().tobytes(), digest_size=8).digest()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
