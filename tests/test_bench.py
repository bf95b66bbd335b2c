"""`pixelq bench replay`: its output, its data, and that it measures the memory really taken."""

import json

import numpy as np
import pytest

from pixelq.bench import replay
from pixelq.bench.replay import Played, bench_replay, play
from pixelq.cli.main import main
from pixelq.config import ViewConfig
from pixelq.evaluation.players import RandomAgent

KEYS = [
    *("store", "game", "transitions", "resident_bytes", "bytes_per_transition"),
    *("sample32_ms_median", "adds_per_second"),
]


def bench(capsys, *words):
    status = main(["bench", *words])
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err


@pytest.mark.slow
def test_it_ends_with_one_line_of_json(capsys):
    words = ("--transitions", "30000", "--games", "catch", "--stores", "lz4", "ram", "--seconds", "0.1", "--json")
    status, lines, _ = bench(capsys, "replay", *words)
    assert status == 0
    results = json.loads(lines[-1])["results"]
    assert [list(result) for result in results] == [KEYS] * 2
    assert [(result["store"], result["game"], result["transitions"]) for result in results] == [
        *(("lz4", "catch", 30_000), ("ram", "catch", 30_000))
    ]
    assert len(lines) == 1 + 2 + 1
    lz4, ram = results
    assert ram["resident_bytes"] == pytest.approx(30_000 * (84 * 84 + 9), rel=0.05)
    assert 30_000 * 60 < lz4["resident_bytes"] < 30_000 * 400
    for result in results:
        assert result["bytes_per_transition"] == result["resident_bytes"] / 30_000
        assert 0.01 < result["sample32_ms_median"] < 100
        assert result["adds_per_second"] > 1_000


@pytest.mark.slow
def test_a_store_that_is_too_large_is_left_out_with_a_note(capsys):
    words = ("--transitions", "1000000000", "--games", "catch", "--stores", "ram", "--json")
    status, lines, _ = bench(capsys, "replay", *words)
    assert status == 0
    assert "catch, ram: the replay buffer needs 7056.0 GB but" in lines[1]
    assert json.loads(lines[-1]) == {"results": []}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "which benchmark?; there is: env, replay, learner, train; see: pixelq bench --help"),
        (("reply",), 'unknown benchmark "reply"'),
        (("replay", "--transitions", "10"), "--transitions is 10: must be at least 1,000"),
        (("replay", "--seconds", "-1"), "--seconds is -1: must be between 0 and 3,600"),
        (("replay", "--games", "breakuot"), "breakout"),
        (("replay", "--stores", "auto"), "auto"),
        (("replay", "--agent", "nowhere"), "nowhere does not exist"),
    ],
)
def test_bad_words_are_told_in_one_line(capsys, words, line):
    status, lines, error = bench(capsys, *words)
    assert status == 2
    assert lines == []
    assert line in error
    assert error.startswith("pixelq: ")
    assert error.count("\n") == 1


def test_help_lists_the_benchmarks(capsys):
    status, lines, _ = bench(capsys, "--help")
    assert status == 0
    for name in ("env", "replay", "learner", "train"):
        assert any(line.strip().startswith(name) for line in lines)


def test_what_is_played_is_what_a_run_would_remember():
    played = play(RandomAgent("catch"), 800)
    assert played.planes.shape == (101, 8, 84, 84)
    for name in ("actions", "rewards", "terminated", "truncated", "ignored"):
        assert getattr(played, name).shape == (100, 8), name
    assert set(np.unique(played.rewards)) <= {-1.0, 0.0, 1.0}
    assert played.terminated.any()
    ended = (played.terminated | played.truncated)[:-1]
    np.testing.assert_array_equal(played.ignored[1:], ended)


COLOURFUL = RandomAgent("breakout", ViewConfig(colour=True, height=60, width=72, stack=2))


@pytest.mark.slow
def test_a_player_sees_its_game_as_it_learned_to():
    assert play(COLOURFUL, 80).planes.shape == (11, 8, 3, 60, 72)


@pytest.mark.slow
def test_a_players_own_pictures_are_measured():
    (ram,) = bench_replay(COLOURFUL, ["ram"], 10_000, 0.1, print)
    assert ram.bytes_per_transition == pytest.approx(3 * 60 * 72 + 9, rel=0.05)


def test_blocks_are_appended_over_and_over_as_other_games():
    planes = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(84, 2).repeat(84, 3)
    no = np.zeros((3, 8), bool)
    seen = []

    class Memory:
        def __init__(self):
            self.ring = self

        def start(self, planes):
            seen.append(("start", planes[0, 0, 0]))

        def restart(self, planes):
            seen.append(("restart", planes[0, 0, 0]))

        def append(self, actions, rewards, terminated, truncated, ignored, next_planes):
            seen.append((int(actions[0]), next_planes[0, 0, 0]))

    played = Played(planes, np.arange(3)[:, None].repeat(8, 1), np.zeros((3, 8), np.float32), no, no, no)
    replay._append(Memory(), played, 6)
    assert seen == [("start", 0), (0, 1), (1, 2), (2, 3), ("restart", 0), (0, 1), (1, 2)]


@pytest.mark.slow
def test_a_killed_process_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(replay, "_measure", _die)
    with pytest.raises(replay.PixelqError, match="catch, ram: the measuring process was killed"):
        list(bench_replay(RandomAgent("catch"), ["ram"], 1_000, 0.0, print))


def _die(*_):
    import os

    os._exit(9)
