"""Convolutions with a largest singular value of one."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SpectralConv2d"]

_SETTLING = 15  # power iterations on fresh weights


class SpectralConv2d(nn.Module):
    """A convolution; its weights, as a matrix [outputs, inputs · rows · columns], are divided by their spectral norm.

    The norm is estimated by power iteration from `u`, the left singular vector, which is kept in the state dict: one
    iteration each forward in training mode with gradients enabled, else none. Weights, `u` and the division
    stay float32; the quotient is cast to the type of the planes.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        kernel: rows and columns of the kernel.
        padding: zeros around the planes.

    Source: Miyato et al. 2018, "Spectral normalization for generative adversarial networks", eq. 8 and Algorithm 1.
    """

    u: Tensor  # [outputs], of length 1

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        convolution = nn.Conv2d(inputs, outputs, kernel)
        assert convolution.bias is not None
        self.weight = convolution.weight
        self.bias = convolution.bias
        self.register_buffer("u", torch.empty(outputs))
        self.settle(None)

    @torch.no_grad()
    def settle(self, generator: torch.Generator | None) -> None:
        """Begin anew from a random `u`, after the weights were set; None: from torch's global generator."""
        if self.u.is_meta:  # no numbers there, but iterations would take a second
            return
        self.u.normal_(generator=generator)
        for _ in range(_SETTLING):
            self._iterate()

    def normalised_weight(self) -> Tensor:
        """The weights [outputs, inputs, rows, columns] divided by their largest singular value, differentiable."""
        iterate = self.training and torch.is_grad_enabled()
        with torch.no_grad():
            # the graph keeps this `u`: the buffer may move on before the gradients are taken
            u = self._iterate().clone() if iterate else self.u
            v = functional.normalize(self._matrix().T @ u, dim=0)
        return self.weight / u.dot(self._matrix() @ v)

    def forward(self, planes: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H', W'], of the same type."""
        weight, bias = self.normalised_weight().to(planes.dtype), self.bias.to(planes.dtype)
        return functional.conv2d(planes, weight, bias, padding=self.padding)

    def _iterate(self) -> Tensor:
        matrix = self._matrix()
        return self.u.copy_(functional.normalize(matrix @ (matrix.T @ self.u), dim=0))

    def _matrix(self) -> Tensor:
        """[outputs, rows · columns · inputs]: singular values know no order of columns, and channels-last has this."""
        return self.weight.permute(0, 2, 3, 1).flatten(1)
