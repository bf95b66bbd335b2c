"""Messages between the page of `pixelq watch` and its server over the WebSocket; static/watch.js is the twin.

The page sends JSON messages. Each gets one answer, in order (a later answer may overtake a `look`):

    {"do": "next", "keys": ["left", "fire"]}          play a step                          -> moment
    {"do": "restart", "seed": 7, "sticky": 0.25}      the first game of a seed             -> state, moment
    {"do": "epsilon", "value": 0.05}                  probability of a random action       -> state
    {"do": "joystick", "holder": "person"}            or "agent"                           -> state
    {"do": "look", "number": 41, "kind": "gradient"}  a map of what counts; "occlusion"    -> look

The server sends `state` as JSON text, moments and looks as binary: four bytes, the length of the JSON that follows
as a little-endian number; that JSON; then, compressed by zlib as one block, the bytes

    moment   count x rows x columns x 3 (pictures, RGB), then the planes seen, the newest last:
             stack x channels x height x width of the state's `seen`, on Atari 4 x 1 x 84 x 84
    look     height x width (what counts most is 255), or nothing if the moment is long past

Any other message ends the connection, with a reason.
"""

import json
import zlib
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from pixelq.viewer.joystick import KEYS
from pixelq.viewer.play import Holder, Moment, SaliencyKind

__all__ = ["Epsilon", "Joystick", "Look", "Next", "Request", "Restart", "pack_look", "pack_moment", "read_request"]

_SEEDS = 2**31
_NUMBERS = 2**53  # what JavaScript counts to
_SHOWN = 40  # characters of nonsense that are repeated
_LEVEL = 1  # of zlib: half a millisecond for four pictures, 400 kB to 5


class Next(NamedTuple):
    """Play a step."""

    keys: frozenset[str]


class Restart(NamedTuple):
    """Start the first game of a seed."""

    seed: int
    sticky: float


class Epsilon(NamedTuple):
    """Choose at random so often."""

    value: float


class Joystick(NamedTuple):
    """Give the joystick to the agent or the person."""

    holder: Holder


class Look(NamedTuple):
    """Show a moment's saliency."""

    number: int
    kind: SaliencyKind


Request = Next | Restart | Epsilon | Joystick | Look


def read_request(text: str) -> Request:
    """Read a page's message.

    Raises:
        ValueError: it is not one of the requests above; names the wrong entry and a correct value.
    """
    try:
        entries = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError("a message must be JSON") from error
    if not isinstance(entries, dict):
        raise ValueError("a message must be a JSON object")
    match entries.get("do"):
        case "next":
            return Next(_keys(entries))
        case "restart":
            return Restart(_whole(entries, "seed", _SEEDS), _probability(entries, "sticky"))
        case "epsilon":
            return Epsilon(_probability(entries, "value"))
        case "joystick":
            holder: Literal["agent", "person"] = _word(entries, "holder", ("agent", "person"))
            return Joystick(holder)
        case "look":
            kind: Literal["gradient", "occlusion"] = _word(entries, "kind", ("gradient", "occlusion"))
            return Look(_whole(entries, "number", _NUMBERS), kind)
    raise ValueError(f'"do" is {_shown(entries.get("do"))}: must be next, restart, epsilon, joystick or look')


def pack_moment(moment: Moment) -> bytes:
    """A moment in the page's format."""
    rows, columns = moment.pictures[0].shape[:2]
    facts = {
        "type": "moment",
        "count": len(moment.pictures),
        "rows": rows,
        "columns": columns,
        "number": moment.number,
        "game": moment.game,
        "values": None if moment.values is None else [float(value) for value in moment.values],
        "action": moment.action,
        "chooser": moment.chooser,
        "reward": moment.reward,
        "lives": moment.lives,
        "over": moment.over,
        "holder": moment.holder,
        "scores": {side: score._asdict() for side, score in moment.scores.items()},
        "trained": moment.trained,
    }
    return _pack(facts, *moment.pictures, moment.seen)


def pack_look(look: Look, saliency: NDArray[np.float32] | None) -> bytes:
    """A map in the page's format, scaled to a highest value of 255; a map of zeros stays zero."""
    facts = {"type": "look", **look._asdict(), "found": saliency is not None}
    if saliency is None:
        return _pack(facts)
    return _pack(facts, (saliency * (255 / max(float(saliency.max()), 1e-30))).astype(np.uint8))


def _pack(facts: dict[str, Any], *arrays: NDArray[np.uint8]) -> bytes:
    head = json.dumps(facts, allow_nan=False).encode()
    body = zlib.compress(b"".join(array.tobytes() for array in arrays), _LEVEL)
    return len(head).to_bytes(4, "little") + head + body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _keys(entries: dict[str, Any]) -> frozenset[str]:
    keys = entries.get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in KEYS for key in keys):
        raise ValueError(f'"keys" is {_shown(keys)}: must be a list of any of {", ".join(KEYS)}')
    return frozenset(keys)


def _whole(entries: dict[str, Any], name: str, end: int) -> int:
    value = entries.get(name)
    if type(value) is not int or not 0 <= value < end:
        raise ValueError(f'"{name}" is {_shown(value)}: must be a whole number from 0 to {end - 1}')
    return value


def _probability(entries: dict[str, Any], name: str) -> float:
    value = entries.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # NaN is neither
        raise ValueError(f'"{name}" is {_shown(value)}: must be a number from 0 to 1')
    return float(value)


def _word(entries: dict[str, Any], name: str, words: tuple[str, ...]) -> Any:
    value = entries.get(name)
    if value not in words:
        raise ValueError(f'"{name}" is {_shown(value)}: must be {" or ".join(words)}')
    return value


def _shown(value: object) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, say
        text = "huge"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
