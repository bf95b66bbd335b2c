"""Heads: shapes of all four kinds, plain and dueling."""

import numpy as np
import pytest
import torch

from pixelq.config import NetworkConfig
from pixelq.networks import make_categorical_network, make_implicit_network, make_network, make_quantile_network

TINY = NetworkConfig(channels=(3, 4, 5), hidden=6)
KINDS = {
    "linear": make_network,
    "categorical": lambda config, actions, generator: make_categorical_network(
        config, actions, 7, -2.0, 4.0, generator
    ),
    "quantile": lambda config, actions, generator: make_quantile_network(config, actions, 5, generator),
    "implicit": lambda config, actions, generator: make_implicit_network(config, actions, 8, 3, generator),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_obs(batch=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (batch, 4, 84, 84), dtype=np.uint8))


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("linear", (2, 4)), ("categorical", (2, 4, 7)), ("quantile", (2, 5, 4)), ("implicit", (2, 9, 4))],
)
def test_outputs_have_their_shapes(kind, shape, dueling):
    network = KINDS[kind](NetworkConfig(channels=(3, 4, 5), hidden=6, dueling=dueling), 4, generator())
    network.lower_precision(torch.bfloat16)
    output = network(random_obs(), *([torch.rand(2, 9)] if kind == "implicit" else []))
    values = network.q_values(random_obs())
    assert (tuple(output.shape), output.dtype) == (shape, torch.float32)
    assert (tuple(values.shape), values.dtype) == ((2, 4), torch.float32)
    assert network.num_actions == 4
