"""What the page of `pixelq watch` and its server say to each other."""

import json
import zlib

import numpy as np
import pytest

from pixelq.evaluation.players import RandomAgent
from pixelq.viewer.messages import (
    Epsilon,
    Joystick,
    Look,
    Next,
    Restart,
    pack_look,
    pack_moment,
    read_request,
)
from pixelq.viewer.play import LiveGame


def unpack(message):
    length = int.from_bytes(message[:4], "little")
    return json.loads(message[4 : 4 + length]), zlib.decompress(message[4 + length :])


@pytest.mark.parametrize(
    ("entries", "request_"),
    [
        ({"do": "next", "keys": []}, Next(frozenset())),
        ({"do": "next", "keys": ["left", "fire", "left"]}, Next(frozenset({"left", "fire"}))),
        ({"do": "restart", "seed": 0, "sticky": 1}, Restart(0, 1.0)),
        ({"do": "restart", "seed": 2**31 - 1, "sticky": 0.25}, Restart(2**31 - 1, 0.25)),
        ({"do": "epsilon", "value": 0.05}, Epsilon(0.05)),
        ({"do": "joystick", "holder": "person"}, Joystick("person")),
        ({"do": "look", "number": 41, "kind": "occlusion"}, Look(41, "occlusion")),
    ],
)
def test_what_a_page_asks_is_read(entries, request_):
    assert read_request(json.dumps(entries)) == request_


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be JSON"),
        ("next", "must be JSON"),
        ('{"do": "next"', "must be JSON"),
        ('{"do": "epsilon", "value": NaN}', "must be JSON"),
        ('{"do": "epsilon", "value": -Infinity}', "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ("9" * 50_000, "must be JSON"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("7", "must be a JSON object"),
        ("{}", '"do" is null'),
        ('{"do": 1}', '"do" is 1'),
        ('{"do": ["next"]}', '"do" is ["next"]'),
        ('{"do": "quit"}', '"do" is "quit": must be next, restart, epsilon, joystick or look'),
        ('{"do": "next"}', '"keys" is null: must be a list of any of up, down, left, right, fire'),
        ('{"do": "next", "keys": "left"}', '"keys" is "left"'),
        ('{"do": "next", "keys": {"left": 1}}', '"keys" is {"left": 1}'),
        ('{"do": "next", "keys": ["LEFT"]}', '"keys" is ["LEFT"]'),
        ('{"do": "next", "keys": [["left"]]}', '"keys" is [["left"]]'),
        ('{"do": "next", "keys": [null]}', '"keys" is [null]'),
        ('{"do": "restart", "sticky": 0}', '"seed" is null: must be a whole number from 0 to 2147483647'),
        ('{"do": "restart", "seed": -1, "sticky": 0}', '"seed" is -1'),
        ('{"do": "restart", "seed": 2147483648, "sticky": 0}', '"seed" is 2147483648'),
        ('{"do": "restart", "seed": 1.0, "sticky": 0}', '"seed" is 1.0'),
        ('{"do": "restart", "seed": true, "sticky": 0}', '"seed" is true'),
        ('{"do": "restart", "seed": "1", "sticky": 0}', '"seed" is "1"'),
        ('{"do": "restart", "seed": 1e3, "sticky": 0}', '"seed" is 1000.0'),
        ('{"do": "restart", "seed": ' + "9" * 4_000 + ', "sticky": 0}', '"seed" is 9999'),
        ('{"do": "restart", "seed": 1, "sticky": 1.01}', '"sticky" is 1.01: must be a number from 0 to 1'),
        ('{"do": "restart", "seed": 1, "sticky": 1e999}', '"sticky" is Infinity'),
        ('{"do": "epsilon", "value": -1e-9}', '"value" is -1e-09'),
        ('{"do": "epsilon", "value": true}', '"value" is true'),
        ('{"do": "epsilon", "value": null}', '"value" is null'),
        ('{"do": "epsilon", "value": "0.1"}', '"value" is "0.1"'),
        ('{"do": "epsilon", "value": [0.1]}', '"value" is [0.1]'),
        ('{"do": "joystick", "holder": "cat"}', '"holder" is "cat": must be agent or person'),
        ('{"do": "joystick", "holder": ["agent"]}', '"holder" is ["agent"]'),
        ('{"do": "look", "number": 1, "kind": "x-ray"}', '"kind" is "x-ray": must be gradient or occlusion'),
        ('{"do": "look", "number": -1, "kind": "gradient"}', '"number" is -1'),
        ('{"do": "look", "number": 1e300, "kind": "gradient"}', '"number" is 1e+300'),
        ('{"do": "\\ud800"}', '"do" is "\\ud800"'),
        ('{"do": "' + "x" * 5_000 + '"}', '"do" is "xxx'),
    ],
)
def test_nonsense_is_named(text, says):
    with pytest.raises(ValueError) as error:
        read_request(text)
    line = str(error.value)
    assert says in line
    assert len(line) < 150
    assert "\n" not in line


@pytest.mark.slow
def test_a_moment_comes_back_from_its_bytes():
    game = LiveGame(RandomAgent("breakout"), 1)
    try:
        for _ in range(20):
            moment = game.step()
    finally:
        game.close()
    message = pack_moment(moment)
    facts, body = unpack(message)
    assert (facts["type"], facts["count"], facts["rows"], facts["columns"]) == ("moment", 4, 210, 160)
    assert len(message) < 20_000  # of 431,424 bytes
    pixels = np.frombuffer(body, np.uint8)
    split = 4 * 210 * 160 * 3
    np.testing.assert_array_equal(pixels[:split].reshape(4, 210, 160, 3), np.stack(moment.pictures))
    np.testing.assert_array_equal(pixels[split:].reshape(4, 84, 84), moment.seen)
    for name in ("number", "game", "action", "chooser", "reward", "lives", "over", "holder", "trained"):
        assert facts[name] == getattr(moment, name)
    assert facts["values"] is None
    assert facts["scores"]["person"] == {"points": 0.0, "steps": 0, "games": 0, "last": None, "best": None}


def test_values_are_numbers():
    game = LiveGame(RandomAgent("catch"), 1)
    moment = game.step()._replace(values=np.array([0.5, -1.25, 3], np.float32))
    facts, body = unpack(pack_moment(moment))
    assert facts["values"] == [0.5, -1.25, 3.0]
    assert len(body) == 84 * 84 * 3 + 4 * 84 * 84


def test_a_look_is_scaled_to_its_highest_value():
    saliency = np.zeros((84, 84), np.float32)
    saliency[3, 4], saliency[5, 6] = 1e-4, 0.5e-4
    facts, body = unpack(pack_look(Look(7, "gradient"), saliency))
    assert facts == {"type": "look", "number": 7, "kind": "gradient", "found": True}
    shown = np.frombuffer(body, np.uint8).reshape(84, 84)
    assert (shown[3, 4], shown[5, 6], int(shown.sum())) == (255, 127, 255 + 127)
    _, body = unpack(pack_look(Look(7, "gradient"), np.zeros((84, 84), np.float32)))
    assert not np.frombuffer(body, np.uint8).any()
    facts, body = unpack(pack_look(Look(7, "occlusion"), None))
    assert (facts["found"], body) == (False, b"")
