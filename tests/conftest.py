"""Settings for all tests: one thread, since workers share the machine; no GPU, except for the GPU tests."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; spinning threads starve the emulator's

import pytest

pytest_plugins = ["browser"]  # the fixtures `chromium` and `page`


def pytest_configure(config):
    """Hide the GPU unless `-m gpu` asks for it: elsewhere runs are compared bit by bit, which no GPU promises."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a shell's background; a run would leave it ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU: make test-gpu"))
