"""A network as two kernels: forward to its outputs, and back from their gradient, for any loss."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pixelq.native.library import ask, call
from pixelq.native.replay import UnreadPlanes, images_of

__all__ = ["Dense", "Layers", "NetworkKernel", "Noise", "Norm", "Stream"]

_POINTERS = (
    *("w", "b", "w_sigma", "b_sigma", "out_w", "out_b", "out_w_sigma", "out_b_sigma", "gain", "shift"),
    *("noise_in", "noise_out", "out_noise_in", "out_noise_out"),
)


_FIELDS = "w", "b", "w_sigma", "b_sigma"  # of `Dense`


class _Stream(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in _POINTERS)


class _Norms(ctypes.Structure):
    _fields_ = (
        ("gain", ctypes.c_void_p * 3),
        ("shift", ctypes.c_void_p * 3),
        ("whole", ctypes.c_int),
        ("epsilon", ctypes.c_float),
    )


class _Network(ctypes.Structure):
    _fields_ = (
        ("sizes", ctypes.c_int * 5),
        ("streams", ctypes.c_int),
        ("each", ctypes.c_int),
        ("torso", ctypes.c_void_p * 10),
        ("stream", _Stream * 2),
        ("epsilon", ctypes.c_float),
        ("planes", _Norms),
    )


class Dense(NamedTuple):
    """Weights of a dense layer; with scales of its noise, they are means."""

    weight: Tensor  # [outputs, inputs]
    bias: Tensor  # [outputs]
    weight_sigma: Tensor | None = None
    bias_sigma: Tensor | None = None


class Norm(NamedTuple):
    """Layer normalisation before a ReLU: of a dense layer; of a convolution at each pixel, or of all of it at once."""

    gain: Tensor  # [units], [channels], [rows, columns, channels]
    shift: Tensor  # the same
    epsilon: float
    """Added to the variance; the same in all streams, and in all convolutions."""


class Stream(NamedTuple):
    """A dense layer with a ReLU in bfloat16, then linear outputs in float32."""

    hidden: Dense
    output: Dense
    norm: Norm | None = None
    """All streams have one, or none."""

    def places(self) -> list[tuple[str, Tensor]]:
        """Its weights, with the kernels' names."""
        layers = (("", self.hidden), ("out_", self.output))
        dense = [(name + field, tensor) for name, layer in layers for field, tensor in zip(_FIELDS, layer, strict=True)]
        norm = [] if self.norm is None else [("gain", self.norm.gain), ("shift", self.norm.shift)]
        return [(name, tensor) for name, tensor in (*dense, *norm) if tensor is not None]


class Layers(NamedTuple):
    """What kernels have to know of a network."""

    convolutions: Sequence[tuple[Tensor, Tensor]]
    """Weights and biases of the three, as `torso` has them."""
    streams: Sequence[Stream]
    """One; or two of as many units, a value and the advantages of actions."""
    num_actions: int
    norms: Sequence[Norm] = ()
    """Of the convolutions, all of one kind; none: they are not normalised."""
    background: Tensor | None = None
    """[1] float32, a whole number that is subtracted from each pixel; None: nothing."""

    def weights(self) -> list[Tensor]:
        """All of them, in order."""
        convolutions = [tensor for layer in self.convolutions for tensor in layer]
        convolutions += [tensor for norm in self.norms for tensor in norm[:2]]
        return [*convolutions, *(tensor for stream in self.streams for _, tensor in stream.places())]


Noise = Sequence[tuple[Tensor, Tensor]]
"""Of each dense layer, streams in order, the outputs last: factors of inputs [p] and outputs [q], float32.

Weights become μ + σ ∘ (outputs ⊗ inputs), biases μ + σ ∘ outputs (Fortunato et al. 2018, eq. 10–11).
"""


class _Pass(NamedTuple):
    """What a forward pass leaves to the backward one."""

    network: _Network
    scratch: Tensor
    noise: Noise | None  # alive


class NetworkKernel:
    """Three convolutions, normalised or not, and one stream or two of dense layers; noisy or normalised or not.

    Two streams are combined as value plus advantages less their mean over the actions, for each number of an action by
    itself; the gradient into what both see is multiplied by 1/√2. Sums are float32, what goes from one layer of the
    torso to the next is rounded to bfloat16. Results do not depend on the number of threads. For one thread at a time.

    Args:
        layers: weights in bfloat16, output layers in float32. They must keep their addresses.

    Source: Mnih et al. 2015, Methods, Model architecture; Wang et al. 2016, "Dueling network architectures", eq. 9.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self.weights = layers.weights()
        for weight, _ in layers.convolutions:
            assert weight.is_contiguous(memory_format=torch.channels_last)
        self._outputs = len(layers.streams[-1].output.bias)
        self._described = _described(layers, self.weights)
        # memory of the kernels is kept: it would be new pages of the system's every time
        self._own = torch.empty(0, dtype=torch.uint8)
        self._free: tuple[list[Tensor], list[Tensor]] = [], []  # of passes without a way back, and with one
        self._spare: list[Tensor] = []  # gradients that nobody needs any more

    def __call__(self, obs: Tensor | UnreadPlanes, noise: Noise | None = None, others: Tensor | None = None) -> Tensor:
        """Outputs of observations.

        Args:
            obs: [B, 4, 84, 84] uint8, or where they are.
            noise: of noisy layers; None: they are silent, and nothing can be differentiated.
            others: [C, 4, 84, 84] uint8, more of them.

        Returns:
            [B + C, actions · numbers of an action] float32, differentiable in all weights if gradients are enabled.
        """
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in self.weights):
            outputs: Tensor = _Outputs.apply(self, obs, noise, others, *self.weights)  # type: ignore[no-untyped-call]
            return outputs
        return self.forward(obs, noise, others, back=False)[0]

    def forward(
        self, obs: Tensor | UnreadPlanes, noise: Noise | None, others: Tensor | None, back: bool
    ) -> tuple[Tensor, _Pass]:
        """The same without autograd; so that `backward` can follow, or not."""
        size = len(obs) + (0 if others is None else len(others))
        network = _Network.from_buffer_copy(self._described)
        if noise is not None:
            places = [factor.data_ptr() for factors in noise for factor in factors]
            for stream, at in zip(network.stream, range(0, len(places), 4), strict=False):
                stream.noise_in, stream.noise_out, stream.out_noise_in, stream.out_noise_out = places[at : at + 4]
        scratch = self._free[back].pop() if self._free[back] else torch.empty(0, dtype=torch.uint8)
        scratch = _at_least(scratch, ask("pixelq_network_scratch", ctypes.byref(network), size, back))
        self._make_room(network, size)
        obs = obs if isinstance(obs, UnreadPlanes) else obs.contiguous()
        others = None if others is None else others.contiguous()
        outputs = torch.empty(size, self._outputs)
        images = ctypes.byref(images_of(obs, others, self._layers.background))
        arguments = size, images, back, outputs, scratch, self._own
        call("pixelq_network_forward", ctypes.byref(network), *arguments)
        if not back:
            self._free[0].append(scratch)
        return outputs, _Pass(network, scratch, noise)

    def backward(self, begun: _Pass, gradient: Tensor) -> list[Tensor]:
        """Gradients of `weights` from the gradient [B, outputs] at a pass' outputs; once for each pass."""
        size, gradients = len(gradient), self._spare
        self._spare = []
        if not gradients:
            gradients = [torch.empty_like(weight, requires_grad=False) for weight in self.weights]
        self._make_room(begun.network, size)
        networks = ctypes.byref(begun.network), ctypes.byref(_described(self._layers, gradients))
        call("pixelq_network_backward", *networks, size, gradient.contiguous(), begun.scratch, self._own)
        self._free[1].append(begun.scratch)
        return gradients

    def take_back(self, gradients: Sequence[Tensor]) -> None:
        """Use gradients' memory for the next ones: new memory would be new pages of the system's every time.

        Args:
            gradients: of all `weights`, in their order; nobody may need them any more.
        """
        assert all(one.stride() == weight.stride() for one, weight in zip(gradients, self.weights, strict=True))
        self._spare = list(gradients)

    def _make_room(self, network: _Network, size: int) -> None:
        self._own = _at_least(self._own, ask("pixelq_network_own", ctypes.byref(network), size))


class _Outputs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: NetworkKernel,
        obs: Tensor | UnreadPlanes,
        noise: Noise | None,
        others: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        outputs, ctx.begun = kernel.forward(obs, noise, others, back=True)
        ctx.kernel = kernel
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        begun, ctx.begun = ctx.begun, None
        if begun is None:
            raise RuntimeError("these outputs were differentiated before: a kernel's pass can be gone back once")
        return None, None, None, None, *ctx.kernel.backward(begun, gradient)


def _at_least(memory: Tensor, size: int) -> Tensor:
    return memory if len(memory) >= size else torch.empty(size, dtype=torch.uint8)


def _described(layers: Layers, tensors: Sequence[Tensor]) -> _Network:
    """The network, or its gradients, given in the order of `Layers.weights`."""
    filters = (len(bias) for _, bias in layers.convolutions)
    hidden, output, norm = layers.streams[-1]
    sizes = (ctypes.c_int * 5)(*filters, len(hidden.bias), layers.num_actions)
    places = [tensor.data_ptr() for tensor in tensors]
    network = _Network(sizes, len(layers.streams), len(output.bias) // layers.num_actions)
    network.torso[:6] = places[:6]
    rest = iter(places[6:])
    for index, plane_norm in enumerate(layers.norms):
        network.planes.gain[index], network.planes.shift[index] = next(rest), next(rest)
        network.planes.whole, network.planes.epsilon = plane_norm.gain.dim() > 1, plane_norm.epsilon
    for stream, of in zip(network.stream, layers.streams, strict=False):
        for name, _ in of.places():
            setattr(stream, name, next(rest))
    network.epsilon = norm.epsilon if norm else 0.0
    return network
