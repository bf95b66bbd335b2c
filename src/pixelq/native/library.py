"""The kernels in C: compiled when they are first wanted, kept in the cache directory, loaded once a process."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelq.cache import cache_folder

__all__ = ["call", "has_tiles", "kernels"]

_SOURCES = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-std=c11", "-D_GNU_SOURCE", "-fPIC", "-fopenmp")
_COMPILE_SECONDS = 300
_TYPES: dict[str, Any] = {"i": ctypes.c_int, "d": ctypes.c_double, "p": ctypes.c_void_p}
_FORMS = {  # the kernels' arguments: integers, float64 numbers, pointers
    "pixelq_begin": "",
    "pixelq_torso_forward": "iiii" + 11 * "p",
    "pixelq_torso_backward": "iiii" + 13 * "p",
    "pixelq_dense_forward": "iii" + 4 * "p",
    "pixelq_dense_backward": "iii" + 7 * "p",
    "pixelq_squares": "ipp",
    "pixelq_adam": "ipp" + 5 * "d",
}
_CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def has_tiles() -> bool:
    """Whether the processor has AMX for bfloat16, and the system is one that is known to let programs use it."""
    flags = _cpu_flags() if sys.platform == "linux" else ""
    return {"amx_bf16", "amx_tile", "avx512_bf16", "avx512bw", "avx512vl"} <= set(flags.split())


@functools.cache
def kernels() -> ctypes.CDLL | None:
    """The library; None where the processor has no AMX or there is no C compiler."""
    if not has_tiles():
        return None
    try:
        library = ctypes.CDLL(str(_built()))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # no compiler, or an old one; no cache or home
        return None
    for name, form in _FORMS.items():
        getattr(library, name).argtypes = [_TYPES[letter] for letter in form]
    return library if library.pixelq_begin() == 0 else None


def call(name: str, *arguments: Tensor | ctypes.Array[Any] | float | None) -> None:
    """Call a kernel with tensors, of which it takes the addresses, and numbers.

    Raises:
        MemoryError: it has not enough for its scratch.
    """
    library = kernels()
    assert library is not None
    if getattr(library, name)(*(value.data_ptr() if isinstance(value, Tensor) else value for value in arguments)):
        raise MemoryError(f"not enough memory for {name}")


def _built() -> Path:
    """Path of the library for these sources, this compiler and this processor, compiled if it is not there."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise OSError("no C compiler")
    runtime = _openmp()
    sources = sorted([*_SOURCES.glob("*.c"), *_SOURCES.glob("*.h")])
    parts = (compiler, *_FLAGS, runtime, _cpu_flags(), *(source.read_text() for source in sources))
    path = cache_folder() / "kernels" / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        objects = [str(Path(folder, source.with_suffix(".o").name)) for source in sources if source.suffix == ".c"]
        for made in objects:
            _run([compiler, *_FLAGS, "-c", str(_SOURCES / Path(made).with_suffix(".c").name), "-o", made])
        library = Path(folder, path.name)
        _run([compiler, "-shared", *objects, runtime or "-fopenmp", "-o", str(library)])
        library.replace(path)  # whole at once, for other processes that start just now
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)


def _openmp() -> str:
    """The OpenMP runtime that torch has loaded, so that its threads work here, too; else the compiler's own."""
    assert torch.get_num_threads()
    names = ("libgomp", "libiomp", "libomp")
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if Path(path).name.startswith(names):
            return path
    return ""


@functools.cache
def _cpu_flags() -> str:
    if not _CPU_INFO.exists():
        return ""
    lines = _CPU_INFO.read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("flags")), "")
