"""Q-networks: a torso over pixels and a head of action values or of distributions of returns."""

from pixelq.networks.activations import hidden_activations
from pixelq.networks.heads import CategoricalHead, DuelingHead, Head, ImplicitHead, LinearHead, QuantileHead
from pixelq.networks.network import (
    Network,
    QNetwork,
    make_categorical_network,
    make_implicit_network,
    make_network,
    make_quantile_network,
)
from pixelq.networks.onnx import CARD_METADATA, OnnxNetwork

__all__ = [
    "CARD_METADATA",
    "CategoricalHead",
    "DuelingHead",
    "Head",
    "ImplicitHead",
    "LinearHead",
    "Network",
    "OnnxNetwork",
    "QNetwork",
    "QuantileHead",
    "hidden_activations",
    "make_categorical_network",
    "make_implicit_network",
    "make_network",
    "make_quantile_network",
]
