"""Heads: from features to values, or distributions of returns, of all actions; their last layers are float32."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pixelq.networks.noisy import NoisyLinear
from pixelq.networks.norms import NormKind, dense_norm

__all__ = ["CategoricalHead", "DenseLayer", "DuelingHead", "Head", "ImplicitHead", "LinearHead", "QuantileHead"]

_FEW = 32  # outputs
DenseLayer = Callable[[int, int], nn.Linear | NoisyLinear]  # inputs, outputs


class LinearHead(nn.Module):
    """A dense layer with a ReLU, then linear units for each action; the last layer always computes in float32.

    Near Q = 8 the spacing of bfloat16 is the size of an action gap, hence the float32 output.

    Args:
        features: width of the input.
        hidden: units of the dense layer.
        num_actions: A.
        units: outputs an action; 1: its value.
        dense: makes both layers.
        norm: layer normalisation of the dense layer, before its ReLU.

    Source: Mnih et al. 2015, Methods, Model architecture.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        num_actions: int,
        units: int = 1,
        dense: DenseLayer = nn.Linear,
        norm: NormKind = "none",
    ) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.hidden = dense(features, hidden)
        self.norm = dense_norm(norm, hidden)
        self.output = dense(hidden, num_actions * units)
        self._spread = False

    @property
    def body(self) -> "LinearHead":
        """The module that computes the head's numbers: here the whole head."""
        return self

    def forward(self, features: Tensor) -> Tensor:
        """[..., features] to [..., A · units] float32, an action's units side by side."""
        return self.outputs(self.norm(self.hidden(features)).relu())

    def outputs(self, hidden: Tensor) -> Tensor:
        """The last layer, [..., hidden] to [..., A · units] float32."""
        hidden = hidden.to(self.output.weight.dtype)
        if self._spread:  # one pass, which torch.compile fuses with its neighbours
            return (hidden.unsqueeze(-2) * self.output.weight).sum(-1) + self.output.bias
        values: Tensor = self.output(hidden)
        return values

    def read(self, numbers: Tensor) -> Tensor:
        """Numbers [B, A] to values [B, A]: they are the values."""
        return numbers

    def values(self, numbers: Tensor) -> Tensor:
        """The same."""
        return numbers

    def q_values(self, features: Tensor) -> Tensor:
        """[B, features] to [B, A] float32."""
        return self(features)  # type: ignore[no-any-return]

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Let the dense layer compute in `dtype`; the output layer stays float32."""
        self.hidden.to(dtype)
        self.norm.to(dtype)

    def spread_outputs(self) -> None:
        """From now on write a few outputs as products and sums, which a compiler fuses, not as a matrix product.

        In float32 a GPU's library takes longer for so narrow a matrix than for the dense layer before it.
        """
        self._spread = isinstance(self.output, nn.Linear) and self.output.out_features <= _FEW


class DuelingHead(nn.Module):
    """Value plus advantages minus their mean over the actions; each stream has its own dense layer.

    With several units an action this is done for each unit separately. The gradient into the features, the sum of
    both streams' gradients, is multiplied by 1/√2.

    Args:
        features: width of the input.
        hidden: units of each of the two dense layers.
        num_actions: A.
        units: outputs an action; 1: its value.
        dense: makes all layers.
        norm: layer normalisation of the dense layers, before their ReLU.

    Source: Wang et al. 2016, "Dueling network architectures", eq. 9, the 1/√2 in section 4.2; for each atom Hessel et
    al. 2018, "Rainbow", section "The integrated agent".
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        num_actions: int,
        units: int = 1,
        dense: DenseLayer = nn.Linear,
        norm: NormKind = "none",
    ) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.value = LinearHead(features, hidden, 1, units, dense, norm)
        self.advantage = LinearHead(features, hidden, num_actions, units, dense, norm)

    @property
    def body(self) -> "DuelingHead":
        """The module that computes the head's numbers: here the whole head."""
        return self

    def forward(self, features: Tensor) -> Tensor:
        """[..., features] to [..., A · units] float32, an action's units side by side."""
        features = self.shared(features)
        return self.combine(self.value(features), self.advantage(features))

    def shared(self, features: Tensor) -> Tensor:
        """The features as both streams see them: the same numbers, with the smaller gradient."""
        return _with_scaled_gradient(features, 0.5**0.5)

    def combine(self, value: Tensor, advantage: Tensor) -> Tensor:
        """The streams' outputs, [..., units] and [..., A · units], to [..., A · units]."""
        value = value.unsqueeze(-2)  # [..., 1, units]
        advantage = _by_action(advantage, self.num_actions)  # [..., A, units]
        return (value + (advantage - advantage.mean(-2, keepdim=True))).flatten(-2)

    def read(self, numbers: Tensor) -> Tensor:
        """Numbers [B, A] to values [B, A]: they are the values."""
        return numbers

    def values(self, numbers: Tensor) -> Tensor:
        """The same."""
        return numbers

    def q_values(self, features: Tensor) -> Tensor:
        """[B, features] to [B, A] float32."""
        return self(features)  # type: ignore[no-any-return]

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Let the dense layers compute in `dtype`; the output layers stay float32."""
        self.value.lower_precision(dtype)
        self.advantage.lower_precision(dtype)


class CategoricalHead(nn.Module):
    """Probabilities of evenly spaced returns, the atoms, for every action.

    Args:
        body: gives `atoms` logits an action.
        atoms: N.
        v_min: return of the first atom.
        v_max: return of the last atom.

    Source: Bellemare et al. 2017, "A distributional perspective on reinforcement learning", section 4.1.
    """

    def __init__(self, body: LinearHead | DuelingHead, atoms: int, v_min: float, v_max: float) -> None:
        super().__init__()
        self.body = body
        self.num_actions = body.num_actions
        self._support = (v_min, v_max, atoms)

    @property
    def atoms(self) -> Tensor:
        """[N] float32 returns, made on the device of the weights each time, as no buffer that could stay elsewhere."""
        device = next(self.body.parameters()).device
        where = "cpu" if device.type == "mps" else device  # which has no float64
        return torch.linspace(*self._support, dtype=torch.float64, device=where).float().to(device)

    def forward(self, features: Tensor) -> Tensor:
        """[B, features] to logits [B, A, N] float32."""
        return self.read(self.body(features))

    def read(self, numbers: Tensor) -> Tensor:
        """Numbers [B, A · N] to logits [B, A, N]."""
        return _by_action(numbers, self.num_actions)

    def values(self, numbers: Tensor) -> Tensor:
        """Numbers [B, A · N] to the mean return of each action, [B, A] float32."""
        probabilities = self.read(numbers).softmax(-1)
        return (probabilities * self.atoms).sum(-1)

    def q_values(self, features: Tensor) -> Tensor:
        """[B, features] to the mean return of each action, [B, A] float32."""
        return self.values(self.body(features))

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Let dense layers compute in `dtype`; logits stay float32."""
        self.body.lower_precision(dtype)


class QuantileHead(nn.Module):
    """Quantiles of the return of every action, at fixed fractions.

    Args:
        body: gives N quantiles an action.

    Source: Dabney et al. 2018, "Distributional reinforcement learning with quantile regression", QR-DQN.
    """

    def __init__(self, body: LinearHead | DuelingHead) -> None:
        super().__init__()
        self.body = body
        self.num_actions = body.num_actions

    def forward(self, features: Tensor) -> Tensor:
        """[B, features] to quantiles [B, N, A] float32."""
        return self.read(self.body(features))

    def read(self, numbers: Tensor) -> Tensor:
        """Numbers [B, A · N] to quantiles [B, N, A]."""
        return _by_action(numbers, self.num_actions).transpose(-2, -1)

    def values(self, numbers: Tensor) -> Tensor:
        """Numbers [B, A · N] to the mean of each action's quantiles, [B, A] float32."""
        return self.read(numbers).mean(-2)

    def q_values(self, features: Tensor) -> Tensor:
        """[B, features] to the mean of each action's quantiles, [B, A] float32."""
        return self.values(self.body(features))

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Let dense layers compute in `dtype`; quantiles stay float32."""
        self.body.lower_precision(dtype)


class ImplicitHead(nn.Module):
    """Quantiles of the return of every action at any fractions τ, which are embedded by cosines.

    Action values are means over K evenly spaced fractions, (i + ½) / K. The paper draws K at random to act; these
    give the same values every time, with less error.

    Args:
        body: gives one quantile an action from features times the embedding of τ.
        features: width of the features.
        cosines: n, cosines of the embedding.
        policy_quantiles: K.

    Source: Dabney et al. 2018b, "Implicit quantile networks for distributional reinforcement learning", eq. 4.
    """

    def __init__(self, body: LinearHead | DuelingHead, features: int, cosines: int, policy_quantiles: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(cosines, features)
        self.body = body
        self.num_actions = body.num_actions
        self._policy_quantiles = policy_quantiles

    def forward(self, features: Tensor, tau: Tensor) -> Tensor:
        """Features [B, features] and fractions tau [B, N] float32 (or [1, N] for all alike) to [B, N, A] float32."""
        multiples = torch.arange(self.embedding.in_features, device=tau.device) * math.pi
        cosines = (tau.unsqueeze(-1) * multiples).cos()  # [B, N, n]: bfloat16 is too coarse for these angles
        embedded: Tensor = self.embedding(cosines.to(self.embedding.weight.dtype)).relu()  # [B, N, features]
        quantiles: Tensor = self.body(features.unsqueeze(-2) * embedded)
        return quantiles

    def q_values(self, features: Tensor) -> Tensor:
        """[B, features] to the mean of each action's K quantiles, [B, A] float32."""
        count = self._policy_quantiles
        tau = (torch.arange(count, device=features.device, dtype=torch.float32) + 0.5) / count
        quantiles: Tensor = self(features, tau.unsqueeze(0))  # embedded once for the whole batch
        return quantiles.mean(-2)

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Let dense layers compute in `dtype`; angles, cosines and quantiles stay float32."""
        self.embedding.to(dtype)
        self.body.lower_precision(dtype)


Head = LinearHead | DuelingHead | CategoricalHead | QuantileHead | ImplicitHead


def _by_action(numbers: Tensor, num_actions: int) -> Tensor:
    """[..., A · units] to [..., A, units]."""
    parted: Tensor = numbers.unflatten(-1, (num_actions, -1))  # type: ignore[no-untyped-call]
    return parted


def _with_scaled_gradient(features: Tensor, scale: float) -> Tensor:
    """The same numbers; the backward pass multiplies their gradient by `scale`."""
    if not features.requires_grad:
        return features
    view = features.view_as(features)  # a hook on `features` would also act on its other uses
    view.register_hook(lambda gradient: gradient * scale)  # type: ignore[no-untyped-call]
    return view
