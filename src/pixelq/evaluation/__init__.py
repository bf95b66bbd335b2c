"""Playing for the record: protocols, scores, videos. Importing the folder itself loads no torch."""

from pixelq.evaluation.protocols import DEFAULT_PROTOCOL, PROTOCOLS, Protocol, choose_protocol, find_protocol

__all__ = ["DEFAULT_PROTOCOL", "PROTOCOLS", "Protocol", "choose_protocol", "find_protocol"]
