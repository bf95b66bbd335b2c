"""Names and ids of games."""

import subprocess
import sys

import ale_py
import gymnasium
import pytest

from pixelq.errors import PixelqError
from pixelq.games import TEST_GAMES, Game, did_you_mean, game_names, resolve_game

gymnasium.register_envs(ale_py)

REGISTERED = [
    name
    for name, spec in gymnasium.registry.items()
    if str(spec.entry_point).startswith("ale_py") and (name.startswith("ALE/") or "NoFrameskip-v" in name)
]


def test_every_registered_id_means_the_game_it_is():
    assert len(REGISTERED) > 200
    for name in REGISTERED:
        kwargs = gymnasium.spec(name).kwargs
        assert resolve_game(name) == Game(kwargs["game"], kwargs["repeat_action_probability"]), name


def test_the_games_are_those_that_can_be_played():
    """Some ROMs are for two players only: ale-py ends the whole process when it is given one."""
    playable = {gymnasium.spec(name).kwargs["game"] for name in REGISTERED if name.startswith("ALE/")}
    assert set(game_names()) == playable | set(TEST_GAMES)
    assert list(game_names()[:-1]) == sorted(playable)


def test_rom_names_mean_no_sticky_actions():
    for name in game_names():
        assert resolve_game(name) == Game(name, 0.0)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("brekout", "breakout"),
        ("Breakout", "breakout"),
        ("MsPacman", "ms_pacman"),
        ("mspacman", "ms_pacman"),
        ("ALE/Brakout-v5", "breakout"),
        ("ALE/breakout-v5", "breakout"),
        ("SpaceInvadrsNoFrameskip-v4", "space_invaders"),
        ("catsh", "catch"),
    ],
)
def test_what_is_nearly_a_game_gets_did_you_mean(text, nearest):
    with pytest.raises(PixelqError) as caught:
        resolve_game(text)
    message = str(caught.value)
    assert f'unknown game "{text}"' in message
    assert f'did you mean "{nearest}"?' in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "xyzzy", "ALE/", "ALE/Xyzzy-v5", "../breakout", "breakout.bin "])
def test_what_is_no_game_gets_one_line(text):
    with pytest.raises(PixelqError, match="pixelq games") as caught:
        resolve_game(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["Breakout-v4", "Breakout-v0", "ALE/Breakout-v4", "BreakoutDeterministic-v4"])
def test_ids_of_another_kind_are_explained(text):
    with pytest.raises(PixelqError) as caught:
        resolve_game(text)
    assert "\n" not in str(caught.value)
    assert "breakout" in str(caught.value).lower()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Breakout-v5", 'unknown game "Breakout-v5" (did you mean "ALE/Breakout-v5"?): or use the ROM name "breakout"'),
        ("MsPacman-v4", 'has another frame skip: use "ms_pacman", "ALE/MsPacman-v5" or "MsPacmanNoFrameskip-v4"'),
        ("Catch-v0", 'unknown game "Catch-v0": pixelq\'s own game is called "catch"'),
        ("CartPole-v5", '(did you mean "CartPole-v1"?)'),
    ],
)
def test_ids_get_the_name_that_is_meant(text, says):
    with pytest.raises(PixelqError) as caught:
        resolve_game(text)
    assert says in str(caught.value)
    assert ("frame skip" in str(caught.value)) is ("frame skip" in says)


def test_did_you_mean_is_silent_without_a_neighbour():
    assert did_you_mean("xyzzy", game_names()) == ""
    assert did_you_mean("PONGG", ("pong", "boxing")) == ' (did you mean "pong"?)'


def test_names_are_found_without_loading_the_emulator():
    code = (
        "import sys, pixelq.games as g; g.resolve_game('pong'); print(sorted({'ale_py', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
