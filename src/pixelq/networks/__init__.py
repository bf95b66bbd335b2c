"""Q-networks: a torso over pixels and a head of action values."""

from pixelq.networks.network import QNetwork, make_network

__all__ = ["QNetwork", "make_network"]
