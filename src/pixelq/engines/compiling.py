"""torch.compile on a GPU: operations of one function fused into few kernels, if this machine can compile."""

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from pixelq.cache import cache_folder

__all__ = ["can_compile", "compiled"]

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
# independent scalars share one kernel
_OPTIONS: dict[str, Any] = {"max_pointwise_cat_inputs": 32}


@functools.cache
def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works for a device here; on a GPU it needs Triton and a C compiler.

    Only a trial shows it: some seconds on a function of one operation, once a process. A CPU is left alone: there
    an update is a few large operations, and compiling them gains nothing.
    """
    if device.type != "cuda":
        return False
    _keep_together()
    try:
        with warnings.catch_warnings(action="ignore"):
            return bool(torch.compile(_double)(torch.ones(3, device=device)).sum() == 6)
    except Exception:  # a missing compiler, a GPU too old, a Triton too new: each raises its own error
        return False


def compiled(
    function: Callable[_Args, _Result], wanted: bool = True, side_by_side: bool = False
) -> Callable[_Args, _Result]:
    """A function of tensors of constant shapes, compiled at its first call if `wanted`.

    Args:
        function: takes and returns tensors, or tuples of them.
        wanted: False returns the function itself.
        side_by_side: put independent operations into one kernel, for example the same one for all weights; pays
            for many small ones.

    If the compiler fails, the plain function is called from then on, with a warning. The function must not draw from a
    `torch.Generator`, nor wait for the device. Tensors that it reads from attributes may change in place, but must keep
    their addresses, and have a dimension: on a CPU PyTorch 2.13 treats single integers and float64 numbers as Python's,
    and loses writes to them.
    """
    if not wanted:
        return function
    options = _OPTIONS | {"combo_kernels": side_by_side}
    quick = torch.compile(function, fullgraph=True, dynamic=False, options=options)
    refused = False

    @functools.wraps(function)
    def call(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        nonlocal refused
        if not refused:
            try:
                return quick(*args, **kwargs)
            except Exception as error:
                if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                refused = True
                line = str(error).splitlines()[0]
                warnings.warn(f"{function.__qualname__} is slow, as it cannot be compiled: {line}", stacklevel=2)
        return function(*args, **kwargs)

    return call


def _keep_together() -> None:
    """One folder for all compilers' caches; no advice on the terminal."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    # float32 products are few and small here, and learning from values needs all of their digits
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor + tensor
