"""Every preset, cut down, learns to catch: settings and measure as in benchmarks/catch.py.

On another processor a run with the same seed rounds differently, so it is another run. Hence an agent that was stopped
too early continues, within a budget of steps with a margin; `benchmarks/catch.py --seeds 1 2 3 4 5` shows which.
"""

from dataclasses import replace

import pytest
import torch

from catch import EACH, catch_config, solve
from pixelq.engines.kernel_network import layers_of, suits_kernels
from pixelq.learner import Learner
from pixelq.presets import PRESETS


def test_every_preset_has_its_settings():
    assert list(EACH) == list(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_with_kernels_the_layers_are_those_that_kernels_know(name):
    config = replace(catch_config(name, seed=1, by_kernels=True), device="cpu")
    network = Learner(config, 3, torch.device("cpu"), torch.Generator().manual_seed(0)).online
    assert suits_kernels(network)
    assert (layers_of(network) is not None) == (name not in ("iqn", "btr"))  # of these the torso alone


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_solves_catch(name):
    result = solve(name, seed=1)
    assert result.solved, result
