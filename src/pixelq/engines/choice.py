"""The choice of an engine, in one place."""

from typing import Literal, NamedTuple

import torch

from pixelq.config import TrainConfig
from pixelq.device import has_fast_bfloat16
from pixelq.engines.kernel_network import suits_kernels
from pixelq.engines.kernels import is_for_kernels
from pixelq.engines.recorded import compiles
from pixelq.native.library import kernels
from pixelq.networks import QNetwork

__all__ = ["Choice", "choose", "quick_precision", "samples_on_device"]


class Choice(NamedTuple):
    """The chosen engine, and why."""

    way: Literal["plain", "kernels", "recorded"]
    why: str
    lacks_kernels: bool = False
    """Whether kernels would compute the updates, if this machine had them."""


def choose(config: TrainConfig, device: torch.device, network: QNetwork) -> Choice:
    """Decide how updates and actions are computed.

    Args:
        config: the recipe, resolved.
        device: where it learns.
        network: the online network, in the precision that it computes in.
    """
    if samples_on_device(config, device):
        return Choice("recorded", "a GPU records its work and replays it, which spares hundreds of launches")
    if compiles(config, device):
        return Choice("recorded", "torch.compile works for this device")
    if not config.compile:
        return Choice("plain", "the config asks for neither kernels nor a compiler")
    if device.type != "cpu" or not suits_kernels(network):
        return Choice("plain", "kernels are for CPUs and bfloat16, and know no layer of this network otherwise")
    if kernels() is None:
        return Choice("plain", "this machine has no kernels, or nothing to compile them with", lacks_kernels=True)
    return Choice("kernels", "kernels know layers of this network, and this machine has them")


def samples_on_device(config: TrainConfig, device: torch.device) -> bool:
    """Whether the device records work, and samples a replay buffer with planes on it."""
    return config.cuda_graphs and device.type == "cuda"


def quick_precision(config: TrainConfig, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The faster precision for a recipe's updates on a device."""
    quick = has_fast_bfloat16(device)
    if not quick and device.type == "cpu":
        quick = is_for_kernels(config) and kernels() is not None
    return "bfloat16" if quick else "float32"
