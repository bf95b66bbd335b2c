"""ARM, as far as another machine can test it: no kernels for updates, and the replay buffer's give the same results."""

import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pixelq.native import building, library
from pixelq.native.building import REPLAY, UPDATES, CompilerError, build, find_compiler, prebuild

CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"  # of Debian's gcc-aarch64-linux-gnu and qemu-user
DRIVER = Path(__file__).with_name("replay_driver.c")
SAID = """\
4761.1428571428569: 3 9 15 20 25 30 36 40 46 51 57 61
1 19.2872009 0.970299006; 3 25.185545 0; 1 9.34691143 0.970299006; 1 12.5278997 0.970299006; 1 0 1; \
1 12.5278997 0.970299006; 3 11 0; 0 10.3911114 0.980099976; 1 17.4434338 0.970299006; 0 10.3911114 0.980099976; \
3 0 1; 1 12.8122444 0.970299006; 
90991
"""  # noqa: W291
AARCH64 = 183  # in an ELF file's head

needs_cross = pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"needs {CROSS}")


def test_there_kernels_for_updates_step_aside(tmp_path, monkeypatch):
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd aes sve bf16\nCPU implementer\t: 0x41\n")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(library, "_CPU_INFO", told)
    monkeypatch.delenv("PIXELQ_INSTRUCTIONS", raising=False)
    library._cpu_info.cache_clear()
    try:
        assert library.usable_instructions() == []
        assert [one.name for one in REPLAY if one.needed <= library._cpu_flags()] == ["replay"]
    finally:
        library._cpu_info.cache_clear()


def test_a_wheel_made_there_holds_what_every_processor_runs(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(building, "build", lambda one, path: made.append(one.name) or path.write_bytes(b""))
    assert prebuild(tmp_path) == {}
    assert made == ["replay"]


@needs_cross
def test_the_replay_kernels_compile_there_and_the_others_say_why_not(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", CROSS)
    build(REPLAY[-1], tmp_path / "replay.so")
    assert struct.unpack_from("<H", (tmp_path / "replay.so").read_bytes(), 18) == (AARCH64,)
    for one in (REPLAY[0], *UPDATES.values()):
        with pytest.raises(
            CompilerError, match=r"aarch64-linux-gnu-gcc failed: .*unrecognized command-line option"
        ) as why:
            build(one, tmp_path / "no.so")
        assert "\n" not in str(why.value)


@pytest.mark.parametrize(
    ("compiler", "words"),
    [
        pytest.param(find_compiler(), (), marks=pytest.mark.skipif(not find_compiler(), reason="needs a C compiler")),
        pytest.param(
            CROSS, (EMULATOR,), marks=[needs_cross, pytest.mark.skipif(not shutil.which(EMULATOR), reason="needs qemu")]
        ),
    ],
)
def test_the_replay_kernels_compute_the_same_on_both(compiler, words, tmp_path):
    sources = [DRIVER, *(Path(building.__file__).parent / name for name in REPLAY[-1].sources)]
    flags = [flag for flag in REPLAY[-1].flags if flag != "-fPIC"]
    static = ["-static"] if words else []  # an emulator has no libraries of the other system
    subprocess.run([compiler, *flags, *static, *sources, "-o", tmp_path / "driver"], check=True)
    done = subprocess.run([*words, tmp_path / "driver"], capture_output=True, text=True, check=True)
    assert done.stdout == SAID
