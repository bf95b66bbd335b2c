"""Named random streams: one seed gives every part of a run its own generator. Imports no torch."""

import hashlib
from typing import Any, cast

import numpy as np

__all__ = ["generator_state", "restore_generator", "stream", "stream_seed"]


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of a name, independent of every other name's.

    Args:
        seed: the run's seed, at least 0.
        name: the stream's purpose, e.g. "explore" or "replay".

    Returns:
        A PCG64 generator at its start.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, name)))


def stream_seed(seed: int, name: str) -> int:
    """A seed for a generator that is not NumPy's, such as `torch.Generator`.

    Args:
        seed: the run's seed, at least 0.
        name: the stream's purpose.

    Returns:
        An integer in [0, 2**63).
    """
    return int(_sequence(seed, name).generate_state(1, np.uint64)[0]) >> 1


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """A stream's state, as plain JSON values."""
    state: dict[str, Any] = dict(generator.bit_generator.state)
    return state


def restore_generator(state: dict[str, Any]) -> np.random.Generator:
    """The generator from `generator_state`; it continues with the very next number.

    Raises:
        ValueError: the state is not a PCG64's.
    """
    bit_generator = np.random.PCG64(0)
    bit_generator.state = cast("Any", state)
    return np.random.Generator(bit_generator)


def _sequence(seed: int, name: str) -> np.random.SeedSequence:
    # Python's own hash() differs from process to process
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.random.SeedSequence([seed, int.from_bytes(digest, "little")])
