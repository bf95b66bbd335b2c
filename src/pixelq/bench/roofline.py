"""Limits of a measured speed: operations done and possible, and bytes that must move."""

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pixelq.device import has_fast_bfloat16

__all__ = ["count_flops", "matmul_flops_per_second", "synchronise", "tensor_bytes"]

_MATMUL_SIZE = {"cpu": 2_048, "cuda": 8_192, "mps": 2_048}
_MATMUL_SECONDS = 0.5
_LEAST_MATMULS = 5


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations in `work`: multiplications and additions of its convolutions and matrix products.

    What is done element by element (activations, the loss, the optimiser) is left out, as usual. The work must run
    operator by operator: a compiled kernel hides its operations.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def matmul_flops_per_second(device: torch.device, precision: str) -> float:
    """Floating-point operations a second that a large matrix product reaches on the threads that torch now has.

    The quickest product of half a second counts: a slow one means that other work disturbed it. If PyTorch lacks fast
    bfloat16, one product would take minutes, so float32 counts.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" and has_fast_bfloat16(device) else torch.float32
    size = _MATMUL_SIZE[device.type]
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    product = left @ right
    synchronise(device)
    times: list[float] = []
    end = time.perf_counter() + _MATMUL_SECONDS
    while len(times) < _LEAST_MATMULS or time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, right, out=product)
        synchronise(device)
        times.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(times)


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
