"""From the held keys to the nearest action of a game."""

from collections.abc import Sequence, Set

__all__ = ["KEYS", "joystick_action"]

KEYS = ("up", "down", "left", "right", "fire")


def joystick_action(action_meanings: Sequence[str], keys: Set[str]) -> int:
    """The action for a joystick's held keys.

    If the game has no such action, FIRE counts most, then left and right, then up and down: in Breakout,
    which has no LEFTFIRE, the ball can be served on the move. Opposite directions cancel.

    Args:
        action_meanings: the meaning of each action, e.g. ("NOOP", "FIRE", "RIGHT", "LEFT").
        keys: the keys of `KEYS` that are down.

    Returns:
        An index into `action_meanings`.
    """
    across = _one_of(keys, "left", "right")
    along = _one_of(keys, "up", "down")
    fire = "FIRE" if "fire" in keys else ""
    wanted = (along + across + fire, across + fire, along + fire, fire, along + across, across, along)
    return next((action_meanings.index(word) for word in wanted if word in action_meanings), 0)


def _one_of(keys: Set[str], one: str, other: str) -> str:
    """The direction that is held alone."""
    held = keys & {one, other}
    return next(iter(held)).upper() if len(held) == 1 else ""
