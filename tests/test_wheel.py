"""What is shipped: the source distribution and the wheels made from it, in an environment of their own."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pixelq
from pixelq.native import building, library

ROOT = Path(__file__).parent.parent
TRAIN = "train keras-example --game catch --total-steps 300 --run run --threads 1 --precision bfloat16"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs a checkout"),
]


def done(*command, **settings):
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **settings)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """What an unpacked source distribution holds; made in a copy, since making one leaves things behind."""
    folder = tmp_path_factory.mktemp("sdist")
    copy = folder / "checkout"
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "constraints.txt",
    ):
        shutil.copy(ROOT / name, copy)
    done(sys.executable, "-c", f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})", cwd=copy)
    with tarfile.open(folder / f"pixelq-{pixelq.__version__}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / f"pixelq-{pixelq.__version__}"


def make_wheel(sources, folder, **environment):
    settings = {"cwd": sources, "env": os.environ | environment}
    command = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    done(sys.executable, "-c", command, **settings)
    shutil.rmtree(sources / "build", ignore_errors=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel, folder):
    """A fresh environment with the wheel in it; what pixelq needs is this one's."""
    done(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv/bin/python"
    site = Path(done(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return python


def run_in(python, folder, *words):
    """Run with no compiler to be found, an empty cache, and nothing of this process's settings."""
    (folder / "bin").mkdir(exist_ok=True)
    environment = {"PATH": str(folder / "bin"), "HOME": str(folder), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
    return done(python, *words, cwd=folder, env=environment)


needs_compiler = pytest.mark.skipif(building.find_compiler() is None, reason="needs a C compiler")


@needs_compiler
def test_a_wheel_brings_its_kernels(unpacked, tmp_path, monkeypatch):
    monkeypatch.delenv("PIXELQ_INSTRUCTIONS", raising=False)  # as for the run in the fresh environment
    wheel = make_wheel(unpacked, tmp_path)
    assert wheel.name.startswith(f"pixelq-{pixelq.__version__}-py3-none-")
    assert not wheel.name.endswith("-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"pixelq/{name}" for name in ("py.typed", "agents/breakout.safetensors", "native/team.h")} <= set(names)
    python = install(wheel, tmp_path)
    assert run_in(python, tmp_path, "-m", "pixelq", "--version").strip() == f"pixelq {pixelq.__version__}"
    where = run_in(
        python, tmp_path, "-c", "import pixelq.native.library as l; print(l.__file__, l.replay_kernels()._name)"
    ).split()
    assert all(path.startswith(str(tmp_path / "venv")) for path in where), where
    said = run_in(python, tmp_path, "-m", "pixelq", *TRAIN.split())
    if usable := library.usable_instructions():
        assert f"{usable[0]} kernels" in said
    assert "compiler" not in said
    assert not list((tmp_path / ".cache").rglob("*.so"))


def test_a_wheel_made_without_a_compiler_is_for_every_machine_and_says_what_it_lacks(unpacked, tmp_path):
    wheel = make_wheel(unpacked, tmp_path, CC="/nowhere/cc")
    assert wheel.name.endswith("-py3-none-any.whl")
    said = run_in(install(wheel, tmp_path), tmp_path, "-m", "pixelq", *TRAIN.split())
    assert "kernels" in said
    assert "no C compiler" in said
