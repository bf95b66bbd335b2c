"""The family of errors a person can cause: each is one line that names what is wrong and what would be right."""

__all__ = ["CheckpointError", "ConfigError", "GameError", "PixelqError"]


class PixelqError(Exception):
    """A user's request cannot be done; its text is the one line shown, and the exit status is 2."""

    exit_status = 2


class ConfigError(PixelqError):
    """A setting out of range, or two settings that exclude each other."""


class CheckpointError(PixelqError):
    """A checkpoint that is missing or damaged, or does not fit the run."""


class GameError(PixelqError):
    """A game that failed while it was played; the exit status is 1."""

    exit_status = 1
