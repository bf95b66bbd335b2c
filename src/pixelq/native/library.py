"""The kernels in C: compiled when they are first wanted, kept in the cache directory, loaded once a process."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelq.cache import cache_folder
from pixelq.errors import PixelqError

__all__ = [
    "address_of",
    "ask",
    "call",
    "has_compiler",
    "instructions",
    "kernels",
    "replay_kernels",
    "usable_instructions",
]

_SOURCES = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-std=c11", "-D_GNU_SOURCE", "-fPIC", "-pthread")
_COMPILE_SECONDS = 300
_TYPES: dict[str, Any] = {"i": ctypes.c_int, "l": ctypes.c_long, "d": ctypes.c_double, "p": ctypes.c_void_p}
_TILE_SOURCES = ("adam.c", "dense.c", "q_learning.c", "team.c", "torso.c")
_REPLAY_SOURCES = ("replay.c", "team.c")
_HEADERS = ("layers.h", "optimiser.h", "team.h", "tiles.h", "tiles_amx.h", "tiles_vectors.h", "avx2.h")
_AVX512 = {"avx512bw", "avx512dq", "avx512f", "avx512vl"}
# instructions for products of tiles, the quickest first: what the processor must have, what the compiler is told
_INSTRUCTIONS: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "AMX": ({"amx_bf16", "amx_tile", "avx512_bf16"} | _AVX512, ("-DWITH_AMX",)),
    "AVX512-BF16": ({"avx512_bf16"} | _AVX512, ("-DWITH_AVX512_BF16",)),
    "AVX512": (_AVX512, ("-mno-avx512bf16",)),
    "AVX2": ({"avx2", "fma"}, ("-mno-avx512f", "-DWITH_AVX2")),
}
# Intel's AVX512-BF16 takes twice as long as AVX512 does for as many products in float32
_INTELS_ORDER = ("AMX", "AVX512", "AVX512-BF16", "AVX2")
_WANTED = "PIXELQ_INSTRUCTIONS"
# the kernels' arguments: integers, numbers, pointers
_TEAM_FORMS = {"pixelq_threads": "i"}
_TILE_FORMS = _TEAM_FORMS | {
    "pixelq_begin": "",
    "pixelq_torso_forward": "iiii" + 11 * "p",
    "pixelq_torso_backward": "iiii" + 13 * "p",
    "pixelq_dense_forward": "iii" + 4 * "p",
    "pixelq_dense_backward": "iii" + 7 * "p",
    "pixelq_q_values": "ppipp",
    "pixelq_q_learning_scratch": "pip",
    "pixelq_q_learning": "ppi" + 6 * "p",
    "pixelq_adam": "pp",
}
_REPLAY_FORMS = _TEAM_FORMS | {
    "pixelq_read_plane": "plp",
    "pixelq_read_planes": "pipp",
    "pixelq_transitions": "pidi" + 6 * "p",
    "pixelq_tree_set": "piipp",
    "pixelq_tree_find": "piipp",
}
_CPU_INFO = Path("/proc/cpuinfo")


def usable_instructions() -> list[str]:
    """Those that this processor has and kernels for updates can use, the quickest first.

    The environment's PIXELQ_INSTRUCTIONS allows only some: `AMX`, `AVX512-BF16`, `AVX512`, `AVX2`, or `none`.

    Raises:
        PixelqError: it names another.
    """
    flags = set((_cpu_info("flags") if sys.platform == "linux" else "").split())
    usable = [name for name, (needed, _) in _INSTRUCTIONS.items() if needed <= flags]
    if _cpu_info("vendor_id") == "GenuineIntel":
        usable.sort(key=_INTELS_ORDER.index)
    wanted = os.environ.get(_WANTED)
    if not wanted:
        return usable
    known = (*_INSTRUCTIONS, "none")
    if wanted not in known:
        raise PixelqError(f"{_WANTED} is {wanted}: must be one of {', '.join(known)}")
    return [name for name in usable if name == wanted]


def kernels() -> ctypes.CDLL | None:
    """The library for updates; None where the processor has no such instructions or there is no C compiler."""
    return _tile_kernels()[1]


def instructions() -> str | None:
    """Those of `usable_instructions` that the library for updates uses."""
    return _tile_kernels()[0]


@functools.cache
def _tile_kernels() -> tuple[str | None, ctypes.CDLL | None]:
    """`instructions` and `kernels`."""
    for name in usable_instructions():
        library = _loaded(_TILE_SOURCES, _TILE_FORMS, _INSTRUCTIONS[name][1])
        if library is not None and library.pixelq_begin() == 0:
            return name, library
    return None, None


@functools.cache
def replay_kernels() -> ctypes.CDLL | None:
    """The library for the replay memory; None where there is no C compiler."""
    return _loaded(_REPLAY_SOURCES, _REPLAY_FORMS)


def has_compiler() -> bool:
    """Whether there is a C compiler to look at; it may still fail."""
    compiler = _compiler()
    return compiler is not None and shutil.which(compiler) is not None


def call(name: str, *arguments: Any) -> None:
    """Call a kernel with tensors, of which it takes the addresses, numbers, and whatever ctypes takes.

    Raises:
        RuntimeError: it could not do it: there is not enough memory for its scratch, or what it was given is damaged.
    """
    if ask(name, *arguments):
        raise RuntimeError(f"{name} failed: not enough memory, or damaged data")


def ask(name: str, *arguments: Any) -> int:
    """The same, on as many threads as PyTorch would use; returns the kernel's answer."""
    library = replay_kernels() if name in _REPLAY_FORMS else kernels()
    assert library is not None
    library.pixelq_threads(torch.get_num_threads())
    answer: int = getattr(library, name)(*(v.data_ptr() if isinstance(v, Tensor) else v for v in arguments))
    return answer


def address_of(name: str) -> int:
    """Where a kernel for the replay memory lies, for kernels that call it."""
    library = replay_kernels()
    assert library is not None
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert address is not None
    return address


def _loaded(sources: tuple[str, ...], forms: Mapping[str, str], flags: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(_built(sources, flags)))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # no compiler, or an old one; no cache or home
        return None
    for name, form in forms.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [_TYPES[letter] for letter in form], ctypes.c_long
    return library


def _built(sources: tuple[str, ...], flags: tuple[str, ...] = ()) -> Path:
    """Path of the library of these sources, this compiler and this processor, compiled if it is not there."""
    compiler = _compiler()
    if not compiler:
        raise OSError("no C compiler")
    texts = [(_SOURCES / name).read_text() for name in (*sources, *_HEADERS)]
    flags = (*_FLAGS, *flags)
    parts = (compiler, *flags, _cpu_info("flags"), *texts)
    path = cache_folder() / "kernels" / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        objects = [str(Path(folder, name).with_suffix(".o")) for name in sources]
        for name, made in zip(sources, objects, strict=True):
            _run([compiler, *flags, "-c", str(_SOURCES / name), "-o", made])
        library = Path(folder, path.name)
        _run([compiler, "-shared", "-pthread", *objects, "-o", str(library)])
        library.replace(path)  # whole at once, for other processes that start just now
    return path


def _compiler() -> str | None:
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)


@functools.cache
def _cpu_info(name: str) -> str:
    """What Linux says of the first processor."""
    if not _CPU_INFO.exists():
        return ""
    lines = _CPU_INFO.read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
