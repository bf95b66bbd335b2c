"""FIRE, found by its meaning: in some games action 1 is UP."""

from collections.abc import Sequence

__all__ = ["fire_index"]


def fire_index(action_meanings: Sequence[str]) -> int | None:
    """The action that presses FIRE alone, None in games that have none.

    Args:
        action_meanings: the meaning of each action, e.g. ("NOOP", "FIRE", "RIGHT", "LEFT").
    """
    return action_meanings.index("FIRE") if "FIRE" in action_meanings else None
