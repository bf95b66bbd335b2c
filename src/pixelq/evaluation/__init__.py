"""Playing for the record: protocols, scores, videos. Importing the folder itself loads no torch."""

from pixelq.evaluation.protocols import (
    AS_NAMED,
    DEFAULT_PROTOCOL,
    PROTOCOLS,
    Changes,
    Protocol,
    choose_protocol,
    find_protocol,
)

__all__ = ["AS_NAMED", "DEFAULT_PROTOCOL", "PROTOCOLS", "Changes", "Protocol", "choose_protocol", "find_protocol"]
