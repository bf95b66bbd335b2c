"""The Q-network as a whole, built from its config."""

import functools
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelq.config import ATARI_SHAPE, NetworkConfig, ObsShape
from pixelq.networks.heads import (
    CategoricalHead,
    DenseLayer,
    DuelingHead,
    Head,
    ImplicitHead,
    LinearHead,
    QuantileHead,
)
from pixelq.networks.initialisation import initialise
from pixelq.networks.noisy import NoisyLinear, redraw_noise
from pixelq.networks.torsos import ImpalaTorso, NatureTorso

__all__ = [
    "Network",
    "QNetwork",
    "make_categorical_network",
    "make_implicit_network",
    "make_network",
    "make_quantile_network",
]


class Network(Protocol):
    """What a loss may ask of a network, in any engine; `QNetwork` documents each result."""

    @property
    def head(self) -> Head:
        """What its numbers mean."""

    def __call__(self, obs: Tensor, *arguments: Tensor) -> Tensor:
        """The head's outputs: values, logits or quantiles of all actions."""

    def features(self, obs: Tensor) -> Tensor:
        """The torso's features of observations, [B, 4, 84, 84] uint8 to [B, F], for losses that call the head twice."""

    def q_values(self, obs: Tensor, others: Tensor | None = None) -> Tensor:
        """Expected return of each action, [B, 4, 84, 84] uint8 to [B, A] float32; of other observations behind them."""

    def redraw_noise(self, generator: torch.Generator) -> None:
        """Draw new noise in all noisy layers."""


class QNetwork(nn.Module):
    """Action values of observations: stacks of pictures, [B, 4, 84, 84] on Atari.

    Args:
        torso: [B, 4, 84, 84] in 0…1 to [B, F].
        head: [B, F] to the algorithm's outputs, and to action values [B, A].
        background: the network subtracts one value from all pixels of a colour, at first 0; see `see_background`.
    """

    background: Tensor | None
    """[1] float32, or [3] of a colour picture: bytes that are subtracted from the pixels; None: nothing."""

    def __init__(self, torso: NatureTorso | ImpalaTorso, head: Head, background: bool = False) -> None:
        super().__init__()
        self.torso = torso
        self.head = head
        self.register_buffer("background", torch.zeros(torso.obs_shape.channels) if background else None)
        self._noisy = [module for module in self.modules() if isinstance(module, NoisyLinear)]

    @property
    def num_actions(self) -> int:
        """Number of actions A."""
        return self.head.num_actions

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type that torso and dense layers compute in."""
        return self.torso.compute_dtype

    def forward(self, obs: Tensor, *arguments: Tensor) -> Tensor:
        """The head's outputs: values, logits or quantiles of all actions.

        Args:
            obs: [B, 4, 84, 84] uint8.
            arguments: the head's further inputs: fractions [B, N] for an implicit one.

        Returns:
            float32, of the head's shape.
        """
        output: Tensor = self.head(self.features(obs), *arguments)
        return output

    def features(self, obs: Tensor) -> Tensor:
        """The torso's features of observations, [B, 4, 84, 84] uint8 to [B, F], for losses that call the head twice."""
        features: Tensor = self.torso(self._pixels(obs))
        return features

    def q_values(self, obs: Tensor, others: Tensor | None = None) -> Tensor:
        """Expected return of each action; every network offers it.

        Args:
            obs: [B, 4, 84, 84] uint8.
            others: [C, 4, 84, 84] uint8, more of them, in the same pass.

        Returns:
            [B, A] float32, or [B + C, A].
        """
        return self.head.q_values(self.features(obs if others is None else torch.cat([obs, others])))

    def q_values_of_pixels(self, pixels: Tensor) -> Tensor:
        """The same of pixels [B, 4, 84, 84] of a floating type in 0…1, through which gradients flow."""
        if self.background is not None:
            pixels = pixels - self._dark(self.background)[:, None, None] / 255
        planes = pixels.to(self.compute_dtype, memory_format=torch.channels_last)
        return self.head.q_values(self.torso(planes))

    def _pixels(self, obs: Tensor) -> Tensor:
        """Bytes less the background, divided by 255, here and nowhere else, channels last.

        Planes are woven together as bytes, then widened: on a CPU 2.5 times as fast as `to` with a memory format.
        """
        woven = torch.stack(obs.unbind(1), dim=-1)  # [B, 84, 84, 4]
        pixels = woven.to(self.compute_dtype)
        if self.background is not None:
            pixels -= self._dark(self.background).to(self.compute_dtype)
        return pixels.div_(255).permute(0, 3, 1, 2)

    def _dark(self, background: Tensor) -> Tensor:
        """The background of each plane, [planes]; of grey pictures [1], since PyTorch subtracts one number faster."""
        return background if len(background) == 1 else background.repeat(self.torso.obs_shape.stack)

    @torch.no_grad()
    def see_background(self, pictures: NDArray[np.uint8]) -> None:
        """Take the most common byte of pictures, [N, 84, 84] or [N, 3, 84, 84], of each colour, as background."""
        if self.background is None:
            return
        channels = len(self.background)
        for channel, values in enumerate(np.moveaxis(pictures.reshape(len(pictures), channels, -1), 1, 0)):
            self.background[channel] = int(np.bincount(values.ravel(), minlength=256).argmax())

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Let torso and dense layers compute in `dtype`; the output layers stay float32."""
        self.torso.lower_precision(dtype)
        self.head.lower_precision(dtype)

    def prepare_to_compile(self) -> None:
        """Compute the same sums in the order that suits a GPU's compiler."""
        self.torso.fold_planes()
        for module in self.head.modules():
            if isinstance(module, LinearHead):
                module.spread_outputs()

    @property
    def draws_noise(self) -> bool:
        """Whether it has noisy layers."""
        return bool(self._noisy)

    def redraw_noise(self, generator: torch.Generator) -> None:
        """Draw new noise in all noisy layers, in order; a network without them draws nothing."""
        redraw_noise(self._noisy, generator)


def make_network(
    config: NetworkConfig,
    num_actions: int,
    generator: torch.Generator | None = None,
    shape: ObsShape = ATARI_SHAPE,
) -> QNetwork:
    """Build a network of action values on the CPU with fresh weights.

    Args:
        config: its sizes and its initial weights.
        num_actions: A.
        generator: source of the weights; None: torch's global one.
        shape: of the observations.

    Returns:
        The network, float32, convolutions stored channels-last; forward gives [B, A].
    """
    torso = _torso(config, shape)
    return _assemble(config, torso, _body(config, torso.features, num_actions, 1), generator)


def make_categorical_network(
    config: NetworkConfig,
    num_actions: int,
    atoms: int,
    v_min: float,
    v_max: float,
    generator: torch.Generator | None = None,
    shape: ObsShape = ATARI_SHAPE,
) -> QNetwork:
    """Build a network of probabilities of returns on the CPU with fresh weights.

    Args:
        config: its sizes and its initial weights.
        num_actions: A.
        atoms: N, returns that have a probability.
        v_min: return of the first atom.
        v_max: return of the last atom.
        generator: source of the weights; None: torch's global one.
        shape: of the observations.

    Returns:
        The network; forward gives logits [B, A, N], `head.atoms` the returns [N].
    """
    torso = _torso(config, shape)
    body = _body(config, torso.features, num_actions, atoms)
    return _assemble(config, torso, CategoricalHead(body, atoms, v_min, v_max), generator)


def make_quantile_network(
    config: NetworkConfig,
    num_actions: int,
    quantiles: int,
    generator: torch.Generator | None = None,
    shape: ObsShape = ATARI_SHAPE,
) -> QNetwork:
    """Build a network of quantiles at fixed fractions on the CPU with fresh weights.

    Args:
        config: its sizes and its initial weights.
        num_actions: A.
        quantiles: N.
        generator: source of the weights; None: torch's global one.
        shape: of the observations.

    Returns:
        The network; forward gives [B, N, A].
    """
    torso = _torso(config, shape)
    return _assemble(config, torso, QuantileHead(_body(config, torso.features, num_actions, quantiles)), generator)


def make_implicit_network(
    config: NetworkConfig,
    num_actions: int,
    cosines: int,
    policy_quantiles: int,
    generator: torch.Generator | None = None,
    shape: ObsShape = ATARI_SHAPE,
) -> QNetwork:
    """Build a network of quantiles at any fractions on the CPU with fresh weights.

    Args:
        config: its sizes and its initial weights.
        num_actions: A.
        cosines: size of the embedding of a fraction.
        policy_quantiles: K, evenly spaced fractions; the mean of their quantiles is an action's value.
        generator: random generator for the weights; None: torch's global one.
        shape: of the observations.

    Returns:
        The network; forward takes fractions [B, N] beside the observations and gives [B, N, A].
    """
    torso = _torso(config, shape)
    body = _body(config, torso.features, num_actions, 1)
    return _assemble(config, torso, ImplicitHead(body, torso.features, cosines, policy_quantiles), generator)


def _torso(config: NetworkConfig, shape: ObsShape) -> NatureTorso | ImpalaTorso:
    first, second, third = (config.width * filters for filters in config.channels)
    if config.torso == "impala":
        return ImpalaTorso((first, second, third), config.spectral_norm, config.max_pool, shape)
    return NatureTorso((first, second, third), config.norm, shape)


def _body(config: NetworkConfig, features: int, num_actions: int, units: int) -> LinearHead | DuelingHead:
    """Dense layers and outputs, with this many units for each action."""
    dense: DenseLayer = functools.partial(NoisyLinear, sigma0=config.noisy_sigma) if config.noisy else nn.Linear
    kind = DuelingHead if config.dueling else LinearHead
    return kind(features, config.hidden, num_actions, units, dense, config.norm)


def _assemble(
    config: NetworkConfig, torso: NatureTorso | ImpalaTorso, head: Head, generator: torch.Generator | None
) -> QNetwork:
    network = QNetwork(torso, head, config.background == "common")
    initialise(network, config.init, generator)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
