"""Puts the kernels into wheels, compiled for every set of instructions; `pyproject.toml` says the rest.

Without a C compiler, or with PIXELQ_NO_KERNELS set, the wheel has none and is for every machine; pixelq then compiles
them when they are first wanted, where it can. An editable install compiles none either.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

_NATIVE = "pixelq/native"


def _load_building() -> Any:
    """`pixelq.native.building`, by its path: what pixelq needs is not there while a wheel is built."""
    path = Path(__file__).parent / "src" / _NATIVE / "building.py"
    spec = importlib.util.spec_from_file_location("building", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["building"] = module  # as NamedTuple asks for its module
    spec.loader.exec_module(module)
    return module


building = _load_building()


def _has_kernels() -> bool:
    return not os.environ.get("PIXELQ_NO_KERNELS") and building.find_compiler() is not None


class BuildWithKernels(build_py):
    """Copies the package, and compiles the kernels beside it."""

    def run(self) -> None:
        """Do so."""
        super().run()
        if self.editable_mode:
            return
        if not _has_kernels():
            self.announce("pixelq: no C compiler, so no kernels are in this wheel; training will be slower", 3)
            return
        failed = building.prebuild(Path(self.build_lib) / _NATIVE / building.PREBUILT.name)
        for name, why in failed.items():
            self.announce(f"pixelq: the kernels {name} are left out of this wheel: {why}", 3)


class Wheel(bdist_wheel):
    """For this kind of machine if there are kernels in it, but for every Python: nothing in it is linked to one."""

    def get_tag(self) -> tuple[str, str, str]:
        """The wheel's tag."""
        python, abi, platform = super().get_tag()
        return ("py3", "none", platform) if _has_kernels() else (python, abi, platform)


class Package(Distribution):
    """Tells setuptools whether the wheel is for one kind of machine."""

    def has_ext_modules(self) -> bool:
        """Whether it is."""
        return _has_kernels()


setup(cmdclass={"build_py": BuildWithKernels, "bdist_wheel": Wheel}, distclass=Package)
