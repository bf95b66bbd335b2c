"""Dense layers with noise on their weights, for exploration."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NoisyLinear", "redraw_noise"]


class NoisyLinear(nn.Module):
    """A dense layer with weights μ + σ ⊙ ε, with factorised noise ε; in evaluation mode they are μ alone.

    The noise is the one that was last drawn, the same for a whole batch. It is no part of the state dict, so it must
    be drawn anew after loading. In training mode a layer without noise raises, since a layer that is silent where it
    should explore goes unnoticed.

    Args:
        inputs: p, width of the input.
        outputs: q, width of the output.
        sigma0: σ₀; every σ begins at σ₀ / √p.

    Source: Fortunato et al. 2018, "Noisy networks for exploration", eq. 10–11 and section 3.2.
    """

    def __init__(self, inputs: int, outputs: int, sigma0: float) -> None:
        super().__init__()
        self.in_features = inputs
        self.out_features = outputs
        self.sigma0 = sigma0
        self.weight = nn.Parameter(torch.empty(outputs, inputs))  # μ
        self.bias = nn.Parameter(torch.empty(outputs))
        self.weight_sigma = nn.Parameter(torch.empty(outputs, inputs))
        self.bias_sigma = nn.Parameter(torch.empty(outputs))
        # no buffers: they would be left behind on the meta device, and lowered with the weights
        self._noise: tuple[Tensor, Tensor] | None = None  # f(ε) of the inputs [p] and of the outputs [q], float32
        self.reset(None)

    def reset(self, generator: torch.Generator | None) -> None:
        """Draw μ uniformly within 1/√p and set σ to σ₀/√p; None: from torch's global generator."""
        bound = self.in_features**-0.5
        for mean, sigma in ((self.weight, self.weight_sigma), (self.bias, self.bias_sigma)):
            nn.init.uniform_(mean, -bound, bound, generator=generator)
            nn.init.constant_(sigma, self.sigma0 * bound)

    def redraw_noise(self, generator: torch.Generator) -> None:
        """Draw new noise; tensors kept by earlier forward passes do not change."""
        redraw_noise([self], generator)

    @property
    def noise(self) -> tuple[Tensor, Tensor]:
        """What was drawn last: factors of the inputs [p] and of the outputs [q], float32.

        Raises:
            RuntimeError: no noise was drawn yet.
        """
        if self._noise is None:
            raise RuntimeError("a noisy layer has no noise yet: call redraw_noise(generator) before, or eval()")
        return self._noise

    def forward(self, features: Tensor) -> Tensor:
        """[..., p] to [..., q].

        Raises:
            RuntimeError: training mode, and no noise was drawn yet.
        """
        if not self.training:
            return functional.linear(features, self.weight, self.bias)
        inputs, outputs = (noise.to(self.weight) for noise in self.noise)
        # the weights are built, since the product of the factors with the batch would double the matrix products
        weight = self.weight + self.weight_sigma * outputs.outer(inputs)
        return functional.linear(features, weight, self.bias + self.bias_sigma * outputs)


def redraw_noise(layers: Sequence[NoisyLinear], generator: torch.Generator) -> None:
    """Draw new noise in several layers; the numbers are those of one layer after the other, in fewer operations.

    Args:
        layers: on one device; may be none.
        generator: source of the noise.

    Source: Fortunato et al. 2018, section 3.1, f(x) = sgn(x)√|x|.
    """
    if not layers:
        return
    sizes = [size for layer in layers for size in (layer.in_features, layer.out_features)]
    normal = torch.empty(sum(sizes), device=generator.device)
    # each layer draws by itself: how many numbers are drawn at once changes them
    for part in torch.split(normal, [layer.in_features + layer.out_features for layer in layers]):
        part.normal_(generator=generator)
    noise = torch.split((normal.sign() * normal.abs().sqrt()).to(layers[0].weight.device), sizes)
    for layer, inputs, outputs in zip(layers, noise[::2], noise[1::2], strict=True):
        layer._noise = inputs, outputs
