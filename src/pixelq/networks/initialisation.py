"""Initial weights of a whole network."""

import torch
from torch import nn

from pixelq.networks.noisy import NoisyLinear
from pixelq.networks.spectral import SpectralConv2d

__all__ = ["initialise"]


def initialise(network: nn.Module, init: str, generator: torch.Generator | None) -> None:
    """Draw the weights of all layers, in the order of `named_modules`.

    Noisy layers keep the initial weights of their own paper. A network on the device `meta` has shapes only and is left
    alone: there PyTorch would load its compiler to do nothing.

    Args:
        network: what to fill; layers called `output` are the last ones, which no ReLU follows.
        init: `torch`; or `glorot_uniform`, `he_normal`, `orthogonal`, `centred_orthogonal`, which set biases to zero.
        generator: source of the weights; None: torch's global one.

    Source: Glorot & Bengio 2010, eq. 16; He et al. 2015, eq. 10; Saxe et al. 2014. The last layer has gain 1, the
    others √2 for their ReLU. So has purejaxql's PQN; its last layer is Flax' default, variance 1 / inputs.
    """
    if any(weight.is_meta for weight in network.parameters()):
        return
    for name, layer in network.named_modules():
        if isinstance(layer, NoisyLinear):
            layer.reset(generator)
        elif isinstance(layer, nn.Conv2d | nn.Linear | SpectralConv2d):
            _draw(layer, init, "linear" if name.endswith("output") else "relu", generator)
        if isinstance(layer, SpectralConv2d):
            layer.settle(generator)
    if init == "centred_orthogonal":
        _centre(next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d | SpectralConv2d)))


@torch.no_grad()
def _centre(layer: nn.Conv2d | SpectralConv2d) -> None:
    """Subtract each filter's mean, so that an even part of the picture, dark or bright, gives no response.

    Without this, half of the filters are silent on a dark background, even if a small object moves there.
    """
    layer.weight -= layer.weight.mean(dim=(1, 2, 3), keepdim=True)


def _draw(
    layer: nn.Conv2d | nn.Linear | SpectralConv2d, init: str, activation: str, generator: torch.Generator | None
) -> None:
    assert layer.bias is not None
    if init == "torch":  # PyTorch's own default, drawn from an explicit generator: both uniform within 1/√fan_in
        bound = layer.weight[0].numel() ** -0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        return
    nn.init.zeros_(layer.bias)
    gain = nn.init.calculate_gain(activation)  # type: ignore[arg-type]
    if init == "glorot_uniform":
        nn.init.xavier_uniform_(layer.weight, generator=generator)
    elif init == "he_normal":
        fan_in = layer.weight[0].numel()
        nn.init.normal_(layer.weight, 0.0, gain * fan_in**-0.5, generator=generator)
    elif init in ("orthogonal", "centred_orthogonal"):
        nn.init.orthogonal_(layer.weight, gain, generator=generator)
    else:
        raise ValueError(f"no initial weights are called {init}")
