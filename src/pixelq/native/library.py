"""The kernels in C, loaded once a process: from a wheel, or compiled at first use and kept in the cache."""

import ctypes
import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelq.cache import cache_folder
from pixelq.errors import PixelqError
from pixelq.native.building import (
    REPLAY,
    UPDATES,
    CompilerError,
    Library,
    build,
    file_digest,
    find_compiler,
    prebuilt,
    sources_digest,
)
from pixelq.system import sync_directory

__all__ = [
    "address_of",
    "ask",
    "call",
    "has_compiler",
    "instructions",
    "kernels",
    "replay_kernels",
    "usable_instructions",
    "why_missing",
]

_TYPES: dict[str, Any] = {"i": ctypes.c_int, "l": ctypes.c_long, "d": ctypes.c_double, "p": ctypes.c_void_p}
# Intel's AVX512-BF16 takes twice as long as AVX512 in float32
_INTELS_ORDER = ("AMX", "AVX512", "AVX512-BF16", "AVX2")
_WANTED = "PIXELQ_INSTRUCTIONS"
# the kernels' arguments: integers, numbers, pointers
_TEAM_FORMS = {"pixelq_threads": "i"}
_TILE_FORMS = _TEAM_FORMS | {
    "pixelq_begin": "",
    "pixelq_torso_forward": "iiii" + 12 * "p",
    "pixelq_torso_backward": "iiii" + 13 * "p",
    "pixelq_dense_forward": "iii" + 4 * "p",
    "pixelq_dense_backward": "iii" + 7 * "p",
    "pixelq_q_values": "ppipp",
    "pixelq_q_learning_scratch": "pip",
    "pixelq_q_learning": "ppi" + 6 * "p",
    "pixelq_move": "pp",
    "pixelq_network_scratch": "pii",
    "pixelq_network_own": "pi",
    "pixelq_network_forward": "pipi" + 3 * "p",
    "pixelq_network_backward": "ppi" + 3 * "p",
}
_REPLAY_FORMS = _TEAM_FORMS | {
    "pixelq_read_plane": "plp",
    "pixelq_read_planes": "pipp",
    "pixelq_transitions": "pidi" + 6 * "p",
    "pixelq_tree_set": "piipp",
    "pixelq_tree_find": "piipp",
}
_CPU_INFO = Path("/proc/cpuinfo")
_missing: dict[str, str] = {}  # reasons, by the names of missing libraries


def usable_instructions() -> list[str]:
    """The instructions of this processor that kernels for updates can use, the quickest first.

    The environment's PIXELQ_INSTRUCTIONS allows only some: `AMX`, `AVX512-BF16`, `AVX512`, `AVX2`, or `none`.

    Raises:
        PixelqError: it names another.
    """
    usable = [name for name, library in UPDATES.items() if library.needed <= _cpu_flags()]
    if _cpu_info("vendor_id") == "GenuineIntel":
        usable.sort(key=_INTELS_ORDER.index)
    wanted = os.environ.get(_WANTED)
    if not wanted:
        return usable
    known = (*UPDATES, "none")
    if wanted not in known:
        raise PixelqError(f"{_WANTED} is {wanted}: must be one of {', '.join(known)}")
    return [name for name in usable if name == wanted]


def kernels() -> ctypes.CDLL | None:
    """The library for updates; None if the processor lacks the instructions or there is no C compiler."""
    return _tile_kernels()[1]


def instructions() -> str | None:
    """Those of `usable_instructions` that the library for updates uses."""
    return _tile_kernels()[0]


@functools.cache
def _tile_kernels() -> tuple[str | None, ctypes.CDLL | None]:
    """`instructions` and `kernels`."""
    for name in usable_instructions():
        library = _loaded(UPDATES[name], _TILE_FORMS)
        if library is not None and library.pixelq_begin() == 0:
            return name, library
    return None, None


@functools.cache
def replay_kernels() -> ctypes.CDLL | None:
    """The library for the replay buffer; None if pixelq came without one and there is no C compiler."""
    usable = [library for library in REPLAY if library.needed <= _cpu_flags()]
    return next(filter(None, (_loaded(library, _REPLAY_FORMS) for library in usable)), None)


def why_missing() -> str | None:
    """Why libraries that this processor could use are not there, in a line; None: none was missed so far."""
    return next(iter(_missing.values()), None)


def has_compiler() -> bool:
    """Whether a C compiler is installed; it may still fail."""
    return find_compiler() is not None


def call(name: str, *arguments: Any) -> None:
    """Call a kernel with tensors (by address), numbers, and ctypes values.

    Raises:
        RuntimeError: it failed: there is too little memory for its scratch, or its data is damaged.
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
    """The address of a kernel for the replay buffer, for kernels that call it."""
    library = replay_kernels()
    assert library is not None
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert address is not None
    return address


def _loaded(library: Library, forms: Mapping[str, str]) -> ctypes.CDLL | None:
    for path in _places(library):
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError as error:  # a wheel for another C library, say
            _missing[library.name] = str(error)
            continue
        for name, form in forms.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = [_TYPES[letter] for letter in form], ctypes.c_long
        _missing.pop(library.name, None)
        return loaded
    return None


def _places(library: Library) -> Iterator[Path]:
    """Where a library is: as it came with pixelq, and then as it was compiled here."""
    came = prebuilt(library)
    if came is not None:
        yield came
    try:
        yield _built(library)
    except CompilerError as error:
        _missing[library.name] = str(error)
    except (OSError, RuntimeError) as error:  # no cache directory, or no home
        _missing[library.name] = f"kernels cannot be kept: {error}"


def _built(library: Library) -> Path:
    """Path of a library in the cache, compiled if it is not there; its name holds its digest, so damage is noticed.

    Raises:
        CompilerError: there is no compiler, or it failed.
        OSError: the cache cannot be written.
        RuntimeError: there is no home for a cache.
    """
    parts = (find_compiler(), sys.platform, os.uname().machine if hasattr(os, "uname") else "", sources_digest(library))
    known_as = f"{library.name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"
    folder = cache_folder() / "kernels"
    for path in folder.glob(f"{known_as}-*.so"):
        if path.name == _kept_name(known_as, path):
            return path
        path.unlink(missing_ok=True)  # cut off by a full disk or a power cut: calling into it would end the process
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as passing:
        made = Path(passing, "library.so")
        build(library, made)
        with made.open("rb+") as file:
            os.fsync(file.fileno())
        path = folder / _kept_name(known_as, made)
        made.replace(path)  # whole at once, for other processes that start just now
    sync_directory(folder)
    return path


def _kept_name(known_as: str, path: Path) -> str:
    return f"{known_as}-{file_digest(path)[:32]}.so"


def _cpu_flags() -> set[str]:
    """Instructions of this processor by Linux's names; none elsewhere, so there kernels for updates step aside."""
    return set((_cpu_info("flags") if sys.platform == "linux" else "").split())


@functools.cache
def _cpu_info(name: str) -> str:
    """What Linux says of the first processor."""
    if not _CPU_INFO.exists():
        return ""
    lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
