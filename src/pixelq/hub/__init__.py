"""The Hugging Face hub: addresses of agents, downloads that are checked, uploads. Imports no torch."""

from pixelq.hub.address import HubAddress, is_hub_address, parse_address, parse_repository
from pixelq.hub.client import AGENT_FILE, fetch_agent, push_files, sign_in

__all__ = [
    "AGENT_FILE",
    "HubAddress",
    "fetch_agent",
    "is_hub_address",
    "parse_address",
    "parse_repository",
    "push_files",
    "sign_in",
]
