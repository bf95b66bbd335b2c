"""The kernels' libraries: sources, flags, compilation.

Imports neither pixelq nor torch, since `setup.py` runs it to put libraries into a wheel.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "PREBUILT",
    "REPLAY",
    "UPDATES",
    "CompilerError",
    "Library",
    "build",
    "file_digest",
    "find_compiler",
    "prebuild",
    "prebuilt",
    "sources_digest",
]

_FOLDER = Path(__file__).parent
PREBUILT = _FOLDER / "prebuilt"
"""Libraries that came in a wheel."""
_CONTENTS = "contents.json"  # of that folder: digests by file name
_COMPILE_SECONDS = 300
# every library has explicit instructions, never -march=native: a wheel's processor is not the one that made it
_FLAGS = ("-O3", "-std=c11", "-D_GNU_SOURCE", "-fPIC", "-pthread")
_UPDATE_SOURCES = (
    *("dense.c", "linear.c", "network.c", "norms.c", "optimiser.c", "q_learning.c"),
    *("team.c", "torso.c", "torso_back.c"),
)
_REPLAY_SOURCES = ("replay.c", "team.c")

_AVX2 = ("avx2", "fma")
_AVX512 = (*_AVX2, "avx512bw", "avx512dq", "avx512f", "avx512vl")
_AVX512_BF16 = (*_AVX512, "avx512_bf16")
_AMX = (*_AVX512_BF16, "amx_bf16", "amx_tile")
_COMPILERS_NAMES = {"avx512_bf16": "avx512bf16", "amx_bf16": "amx-bf16", "amx_tile": "amx-tile"}


class CompilerError(Exception):
    """There is no C compiler, or it failed: says why in one line."""


class Library(NamedTuple):
    """A library of kernels for processors with some instructions."""

    name: str
    sources: tuple[str, ...]
    needed: frozenset[str]
    """Required instructions of the processor, by Linux's names."""
    flags: tuple[str, ...]
    """The compiler's flags."""


def _library(name: str, sources: tuple[str, ...], needed: tuple[str, ...] = (), *macros: str) -> Library:
    flags = (*_FLAGS, *(f"-m{_COMPILERS_NAMES.get(one, one)}" for one in needed), *macros)
    return Library(name, sources, frozenset(needed), flags)


UPDATES: dict[str, Library] = {
    "AMX": _library("updates-amx", _UPDATE_SOURCES, _AMX, "-DWITH_AMX"),
    "AVX512-BF16": _library("updates-avx512-bf16", _UPDATE_SOURCES, _AVX512_BF16, "-DWITH_AVX512_BF16"),
    "AVX512": _library("updates-avx512", _UPDATE_SOURCES, _AVX512),
    "AVX2": _library("updates-avx2", _UPDATE_SOURCES, _AVX2, "-DWITH_AVX2"),
}
"""Kernels for updates by the instructions of their products of tiles, the quickest first."""
REPLAY: tuple[Library, ...] = (_library("replay-avx2", _REPLAY_SOURCES, _AVX2), _library("replay", _REPLAY_SOURCES))
"""Kernels for the replay buffer, the quickest first; the last works on every processor."""


def find_compiler() -> str | None:
    """The C compiler: from CC, or by a usual name; None: there is none."""
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    return next((name for name in names if shutil.which(name)), None)


def sources_digest(library: Library) -> str:
    """A digest of a library's sources and flags."""
    texts = [(_FOLDER / name).read_bytes() for name in library.sources]
    texts += [path.read_bytes() for path in sorted(_FOLDER.glob("*.h"))]
    return hashlib.sha256(repr((library.sources, library.flags, texts)).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """A digest of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(library: Library, path: Path) -> None:
    """Compile a library.

    Raises:
        CompilerError: there is no compiler, or it failed.
        OSError: the folder cannot be written.
    """
    compiler = find_compiler()
    if compiler is None:
        named = os.environ.get("CC")
        raise CompilerError(f"CC names {named}, which is not there" if named else "no C compiler (cc, gcc or clang)")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        objects = [str(Path(folder, name).with_suffix(".o")) for name in library.sources]
        for name, made in zip(library.sources, objects, strict=True):
            _run([compiler, *library.flags, "-c", str(_FOLDER / name), "-o", made])
        whole = Path(folder, "library.so")
        _run([compiler, "-shared", "-pthread", *objects, "-o", str(whole)])
        whole.replace(path)


def prebuild(folder: Path) -> dict[str, str]:
    """Compile all libraries for machines of this kind, for a wheel.

    Args:
        folder: where to; made if it is not there.

    Returns:
        The reasons, by the names of libraries that could not be made.
    """
    x86 = sys.platform == "linux" and platform.machine() == "x86_64"
    folder.mkdir(parents=True, exist_ok=True)
    libraries = [library for library in (*UPDATES.values(), *REPLAY) if x86 or not library.needed]
    contents, failed = {}, {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        builds = [pool.submit(build, library, folder / f"{library.name}.so") for library in libraries]
    for library, done in zip(libraries, builds, strict=True):
        path = folder / f"{library.name}.so"
        try:
            done.result()
        except CompilerError as error:
            failed[library.name] = str(error)
        else:
            contents[path.name] = {"sources": sources_digest(library), "sha256": file_digest(path)}
    (folder / _CONTENTS).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    return failed


def prebuilt(library: Library, folder: Path = PREBUILT) -> Path | None:
    """A library from a wheel; None: there is none, or it is damaged, or made from other sources."""
    path = folder / f"{library.name}.so"
    try:
        digests = json.loads((folder / _CONTENTS).read_text(encoding="utf-8"))[path.name]
        good = digests == {"sources": sources_digest(library), "sha256": file_digest(path)}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return path if good else None


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_COMPILE_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerError(f"{command[0]} failed: {error}") from error
    if done.returncode:
        raise CompilerError(f"{command[0]} failed: {_why(done.stderr.decode(errors='replace'), done.returncode)}")


def _why(said: str, status: int) -> str:
    """The most useful line of a compiler's errors."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[-1] if lines else f"exit status {status}")
