"""What to do where a library of an extra is missing."""

import shutil
from pathlib import Path

import pytest

from pixelq import extras
from pixelq.errors import PixelqError


def test_the_command_fits_a_checkout_and_an_installed_package(tmp_path):
    assert extras.install_command("onnx", tmp_path) == "pip install 'pixelq[onnx]'"
    (tmp_path / "constraints.txt").touch()  # of another project
    assert extras.install_command("onnx", tmp_path) == "pip install 'pixelq[onnx]'"
    (tmp_path / "src/pixelq").mkdir(parents=True)
    shutil.copy(Path(extras.__file__), tmp_path / "src/pixelq")
    wanted = f"pip install -c constraints.txt -e '.[onnx]' (in {tmp_path})"
    assert extras.install_command("onnx", tmp_path) == wanted


def test_a_missing_library_is_named_with_the_command():
    extras.need("onnx", "json", "math")
    with pytest.raises(PixelqError) as told:
        extras.need("onnx", "json", "no_such_library", "nor_this")
    assert str(told.value) == f"this needs no_such_library and nor_this: {extras.install_command('onnx')}"
