"""A network: C kernels compute the layers that they support, PyTorch computes the others."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pixelq.native.layers import dense_relu, takes_dense, takes_torso, torso
from pixelq.native.network import Dense, Layers, NetworkKernel, Noise, Norm, Stream
from pixelq.native.q_learning import q_values
from pixelq.networks import DuelingHead, Head, ImplicitHead, LinearHead, QNetwork
from pixelq.networks.noisy import NoisyLinear
from pixelq.networks.norms import PlaneNorm
from pixelq.networks.torsos import ImpalaTorso, NatureTorso

__all__ = ["KernelNetwork", "layers_of", "suits_kernels", "suits_kernels_entirely"]


def suits_kernels(network: QNetwork) -> bool:
    """Whether kernels for bfloat16 products support any layer."""
    heads = (module for module in network.modules() if isinstance(module, LinearHead))
    single = _suits_torso(network.torso) or any(map(_suits_dense, heads))
    return network.compute_dtype == torch.bfloat16 and (single or layers_of(network) is not None)


def suits_kernels_entirely(network: QNetwork) -> bool:
    """Whether kernels support all layers but the outputs, and the outputs are linear."""
    head = network.head
    bfloat16 = network.compute_dtype == torch.bfloat16
    return bfloat16 and _suits_torso(network.torso) and isinstance(head, LinearHead) and _suits_dense(head)


def _suits_torso(layers: NatureTorso | ImpalaTorso) -> bool:
    return not _plane_norms(layers) and _suits_convolutions(layers)


def _suits_convolutions(layers: NatureTorso | ImpalaTorso) -> bool:
    if not isinstance(layers, NatureTorso):
        return False
    first, second, third = (convolution.out_channels for convolution in layers.convolutions)
    return takes_torso((first, second, third), layers.obs_shape.obs)


def _plane_norms(layers: NatureTorso | ImpalaTorso) -> list[nn.LayerNorm]:
    return [module.norm for module in layers.modules() if isinstance(module, PlaneNorm)]


def _suits_dense(head: LinearHead) -> bool:
    hidden = head.hidden
    return (
        isinstance(hidden, nn.Linear)
        and isinstance(head.norm, nn.Identity)
        and takes_dense(hidden.in_features, hidden.out_features)
    )


def layers_of(network: QNetwork) -> Layers | None:
    """The network for the whole-network kernel; None if the kernel lacks a layer."""
    if network.compute_dtype != torch.bfloat16 or not _suits_convolutions(network.torso):
        return None
    if isinstance(network.head, ImplicitHead):
        return None
    assert isinstance(network.torso, NatureTorso)
    body = network.head.body
    parts = [body.value, body.advantage] if isinstance(body, DuelingHead) else [body]
    if not takes_dense(parts[0].hidden.in_features, parts[0].hidden.out_features):
        return None
    convolutions = [(layer.weight, cast(Tensor, layer.bias)) for layer in network.torso.convolutions]
    streams = [Stream(_dense(part.hidden), _dense(part.output), _norm(part.norm)) for part in parts]
    norms = [Norm(layer.weight, layer.bias, layer.eps) for layer in _plane_norms(network.torso)]
    return Layers(convolutions, streams, body.num_actions, norms, network.background)


def _dense(layer: nn.Linear | NoisyLinear) -> Dense:
    if isinstance(layer, NoisyLinear):
        return Dense(layer.weight, layer.bias, layer.weight_sigma, layer.bias_sigma)
    return Dense(layer.weight, layer.bias)


def _norm(layer: nn.Module) -> Norm | None:
    return Norm(layer.weight, layer.bias, layer.eps) if isinstance(layer, nn.LayerNorm) else None


class KernelNetwork:
    """A network's interface for losses, computed by kernels on the network's own weights.

    The expensive part is `numbers`: the torso, the dense layers and the outputs. One kernel computes all of
    them if it supports every layer. If not, each supported layer is a kernel. The head gives the numbers their
    meaning.

    Args:
        network: in bfloat16; its weights must keep their addresses.
    """

    def __init__(self, network: QNetwork) -> None:
        self._network = network
        layers = layers_of(network)
        self._whole = layers and NetworkKernel(layers)
        self._noisy = [module for module in network.head.modules() if isinstance(module, NoisyLinear)]
        self._torso: list[tuple[Tensor, Tensor]] | None = None
        if isinstance(network.torso, NatureTorso) and _suits_torso(network.torso):
            self._torso = [(layer.weight, cast(Tensor, layer.bias)) for layer in network.torso.convolutions]
        linear = [module for module in network.modules() if isinstance(module, LinearHead)]
        self._dense = {id(head) for head in linear if _suits_dense(head)}
        self.weights: list[Tensor] | None = None
        """Weight and bias of each layer, if kernels compute the whole network; else None."""
        if suits_kernels_entirely(network):
            self.weights = list(network.parameters())

    @property
    def background(self) -> Tensor | None:
        """The network's background, or None."""
        return self._network.background

    @property
    def head(self) -> Head:
        """The head, which gives the numbers their meaning."""
        return self._network.head

    def redraw_noise(self, generator: torch.Generator) -> None:
        """Draw new noise in all noisy layers."""
        self._network.redraw_noise(generator)

    def features(self, obs: Tensor) -> Tensor:
        """The torso's features of observations, [B, 4, 84, 84] uint8 to [B, F] bfloat16."""
        if self._torso is None:
            return self._network.features(obs)
        return torso(obs, *self._torso, background=self.background)

    def numbers(self, obs: Tensor, others: Tensor | None = None) -> Tensor:
        """The last layer's outputs, [B, A · units] float32, an action's units side by side."""
        assert not isinstance(self.head, ImplicitHead)  # which takes fractions beside the observations
        if self._whole is not None:
            return self._whole(obs, self._noise(), others)
        if others is not None:
            obs = torch.cat([obs, others])
        features, body = self.features(obs), self.head.body
        if isinstance(body, DuelingHead):
            features = body.shared(features)
            return body.combine(self._linear(body.value, features), self._linear(body.advantage, features))
        return self._linear(body, features)

    def __call__(self, obs: Tensor, *arguments: Tensor) -> Tensor:
        """The head's outputs: values, logits or quantiles of all actions."""
        if isinstance(self.head, ImplicitHead):
            quantiles: Tensor = self.head(self.features(obs), *arguments)
            return quantiles
        return self.head.read(self.numbers(obs))

    def q_values(self, obs: Tensor, others: Tensor | None = None) -> Tensor:
        """Expected return of each action, [B, 4, 84, 84] uint8 to [B, A] float32; of other observations behind them."""
        if self.weights is not None and not torch.is_grad_enabled():
            return q_values(self.weights, obs, others, self.background)
        if isinstance(self.head, ImplicitHead):
            return self.head.q_values(self.features(obs if others is None else torch.cat([obs, others])))
        return self.head.values(self.numbers(obs, others))

    def take_back(self, gradients: Sequence[Tensor]) -> None:
        """Gradients of all parameters, in order, that nobody needs any more: the next ones get their memory."""
        if self._whole is not None:
            places = {
                id(weight): gradient for weight, gradient in zip(self._network.parameters(), gradients, strict=True)
            }
            self._whole.take_back([places[id(weight)] for weight in self._whole.weights])

    def _noise(self) -> Noise | None:
        """Noise of the noisy layers, which evaluation leaves out."""
        if not self._noisy or not self._network.training:
            return None
        return [layer.noise for layer in self._noisy]

    def _linear(self, head: LinearHead, features: Tensor) -> Tensor:
        if id(head) not in self._dense:
            outputs: Tensor = head(features)
            return outputs
        return head.outputs(dense_relu(features, head.hidden.weight, head.hidden.bias))
