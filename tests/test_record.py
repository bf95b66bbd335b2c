import json
import subprocess
import sys
from itertools import pairwise

import ale_py
import av
import numpy as np
import pytest
import torch
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv

import pixelq.evaluation.record as record_module
from pixelq.agent import AgentCard, save_agent
from pixelq.config import DQNConfig, EnvConfig, NetworkConfig
from pixelq.envs.interface import game_seed
from pixelq.errors import PixelqError
from pixelq.evaluation import PROTOCOLS
from pixelq.evaluation.players import Policy, RandomAgent
from pixelq.evaluation.record import record
from pixelq.evaluation.record_worker import main
from pixelq.evaluation.screens import AtariScreen, PlaneScreen, picture_form
from pixelq.evaluation.video import VideoWriter
from pixelq.networks import make_network
from pixelq.run.seeding import stream, stream_seed
from pixelq.run.storage import StorageError

RANDOM = RandomAgent("breakout")


@pytest.fixture
def pictures(monkeypatch):
    """What is handed to the encoder."""
    kept = []
    write = VideoWriter.write

    def keep(self, picture):
        kept.append(picture.copy())
        write(self, picture)

    monkeypatch.setattr(VideoWriter, "write", keep)
    return kept


def decode(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.slow
def test_a_video_holds_every_frame_of_the_game(tmp_path, pictures):
    made = record(RANDOM, tmp_path / "deep" / "game.mp4", seed=5, max_frames=400)
    assert made.path == tmp_path / "deep" / "game.mp4"
    frames = decode(made.path)
    assert len(frames) == len(pictures) == made.frames
    assert made.seconds == pytest.approx(made.frames / 60)
    assert {frame.shape for frame in frames} == {(420, 320, 3)}
    for frame, picture in zip(frames, pictures, strict=True):
        # every pixel became a sharp 2 x 2 square, give or take the encoder's loss
        wrong = np.abs(frame.reshape(210, 2, 160, 2, 3) - picture[:, None, :, None].astype(float))
        assert wrong.mean() < 4
    assert any(not np.array_equal(one, other) for one, other in pairwise(pictures))
    assert [path.name for path in made.path.parent.iterdir()] == ["game.mp4"]


@pytest.mark.slow
def test_a_video_is_h264_that_plays_everywhere_at_real_speed(tmp_path):
    made = record(RANDOM, tmp_path / "game.mp4", max_frames=60)
    with av.open(str(made.path)) as container:
        (video,) = container.streams
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.average_rate == 60
        assert video.frames == made.frames
        assert float(video.duration * video.time_base) == pytest.approx(made.seconds)
    data = made.path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # so that it starts before it is loaded


@pytest.mark.parametrize("protocol", ["nature", "dopamine"])
@pytest.mark.slow
def test_the_video_is_as_long_as_the_emulators_game(tmp_path, protocol):
    # the same seed and actions in an emulator of our own
    made = record(RANDOM, tmp_path / "game.mp4", seed=3, protocol=PROTOCOLS[protocol], max_frames=2_000)
    env = PROTOCOLS[protocol].env_config(False)
    games = AtariVectorEnv(
        "breakout",
        1,
        max_num_frames_per_episode=2_000,
        repeat_action_probability=env.sticky,
        noop_max=env.noop_max,
        reward_clipping=False,
    )
    seed = game_seed(stream_seed(3, "recorded game 0"), 0, 0)
    _, info = games.reset(seed=np.array([seed]))
    first = int(info["frame_number"][0])
    chance = Policy(RANDOM, ("NOOP", "FIRE", "RIGHT", "LEFT"), 1.0, stream(3, "recorded actions 0"))
    score, over = 0, False
    while not over:
        actions = chance.act(np.zeros((1, 4, 84, 84), np.uint8), np.zeros(1, bool))
        _, reward, terminated, truncated, info = games.step(actions)
        score += int(reward[0])
        over = bool(terminated[0] or truncated[0])
    games.close()
    assert made.scores == (score,)
    assert made.frames == int(info["frame_number"][0]) - first + 1


@pytest.mark.slow
def test_the_screen_shows_the_emulators_colours():
    screen = AtariScreen("breakout", EnvConfig(sticky=0.0, noop_max=0, fire_at_start=False), 1)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path("breakout"))
    ale.reset_game()
    meanings = ale.getMinimalActionSet()
    start = screen.start(_Result(lives=ale.lives()))
    np.testing.assert_array_equal(start, ale.getScreenRGB())
    chance = np.random.default_rng(0)
    for action in [1, *chance.integers(0, 4, 60)]:
        expected, reward = [], 0
        for _ in range(4):
            reward += ale.act(meanings[action])
            expected.append(ale.getScreenRGB())
        shown = list(screen.step(int(action), _Result(reward, ale.lives())))
        np.testing.assert_array_equal(shown, expected)
    screen.close()
    assert len(np.unique(np.concatenate(shown).reshape(-1, 3), axis=0)) > 5


class _Result:
    """As much of a step's result as a screen looks at."""

    def __init__(self, reward=0, lives=0):
        self.reward = np.array([reward], np.float32)
        self.lives = np.array([lives], np.int32)


def test_a_screen_that_lost_step_says_so():
    screen = AtariScreen("breakout", EnvConfig(sticky=0.0), 1)
    screen.start(_Result(lives=5))
    with pytest.raises(RuntimeError, match="lost step"):
        list(screen.step(0, _Result(reward=3, lives=5)))
    screen.close()


def test_forms_of_pictures():
    assert picture_form("breakout") == (210, 160, 2, 60)
    assert picture_form("pooyan") == (220, 160, 2, 60)
    assert picture_form("catch") == (84, 84, 4, 15)
    plane = np.arange(84 * 84).reshape(84, 84).astype(np.uint8)
    result = _Result()
    result.obs = np.stack([np.zeros((3, 84, 84), np.uint8)[0]] * 3 + [plane])[None]
    np.testing.assert_array_equal(PlaneScreen().start(result), np.stack([plane] * 3, axis=2))


@pytest.mark.slow
def test_catch_is_recorded_in_grey(tmp_path, pictures):
    made = record(RandomAgent("catch"), tmp_path / "catch.mp4", episodes=2, seed=1)
    frames = decode(made.path)
    assert len(made.scores) == 2
    assert len(frames) == len(pictures) == made.frames
    assert frames[0].shape == (336, 336, 3)
    assert made.seconds == pytest.approx(made.frames / 15)
    assert made.settings.startswith("protocol nature: all actions random")


@pytest.mark.slow
def test_the_same_seed_records_the_same_games(tmp_path, pictures):
    videos = [record(RandomAgent("catch"), tmp_path / f"{i}.mp4", 2, seed=i // 2).scores for i in range(4)]
    assert videos[0] == videos[1]
    assert videos[2] == videos[3]
    assert len(set(map(bytes, pictures))) > 20
    quarter = len(pictures) // 4
    np.testing.assert_array_equal(pictures[:quarter], pictures[quarter : 2 * quarter])
    assert not np.array_equal(pictures[:quarter], pictures[2 * quarter : 3 * quarter])


def test_an_existing_video_is_replaced_whole_or_kept(tmp_path, monkeypatch):
    out = tmp_path / "catch.mp4"
    out.write_bytes(b"old")

    def fail(*_):
        raise KeyboardInterrupt

    act = record_module.Policy.act
    monkeypatch.setattr(record_module.Policy, "act", fail)
    with pytest.raises(KeyboardInterrupt):
        record(RandomAgent("catch"), out)
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["catch.mp4"]
    monkeypatch.setattr(record_module.Policy, "act", act)
    record(RandomAgent("catch"), out)
    assert len(decode(out)) > 10


def test_bad_input_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    catch, out = RandomAgent("catch"), tmp_path / "catch.mp4"
    cases = [
        (lambda: record(catch, tmp_path / "catch.gif"), PixelqError, "must end in .mp4"),
        (lambda: record(catch, tmp_path / "catch"), PixelqError, "must end in .mp4"),
        (lambda: record(catch, tmp_path / "folder.mp4"), PixelqError, "is a folder"),
        (lambda: record(catch, tmp_path / "file" / "catch.mp4"), StorageError, "cannot write"),
        (lambda: record(catch, "/proc/nowhere/catch.mp4"), StorageError, "cannot write"),
        (lambda: record(catch, out, episodes=0), PixelqError, "--episodes is 0"),
        (lambda: record(catch, out, seed=-1), PixelqError, "--seed is -1"),
        (lambda: record(catch, out, max_frames=3), PixelqError, "--max-frames is 3"),
        (lambda: record(catch, out, protocol=PROTOCOLS["machado"]), PixelqError, "all 18 actions"),
    ]
    for call, kind, says in cases:
        with pytest.raises(kind) as error:
            call()
        assert says in str(error.value)
        assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4"]


@pytest.mark.parametrize("words", [[], ["agent.safetensors", "out.mp4"], ["a", "b", "c"], ["a", "b", "1", "-4"]])
def test_the_worker_says_how_it_is_used(words, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.slow
def test_the_worker_records_beside_a_run(tmp_path):
    network = NetworkConfig(channels=(1, 1, 1), hidden=4)
    facts = AgentCard("catch", ("NOOP", "RIGHT", "LEFT"), False, 0.0, False, network, DQNConfig(), "custom", 0, 1)
    weights = make_network(network, 3, torch.Generator().manual_seed(0)).state_dict()
    save_agent(tmp_path / "agent.safetensors", weights, facts)
    command = [sys.executable, "-m", "pixelq.evaluation.record_worker", tmp_path / "agent.safetensors"]
    done = subprocess.run([*command, tmp_path / "out.mp4", "7"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert len(decode(tmp_path / "out.mp4")) == said["frames"]
    done = subprocess.run([*command, tmp_path / "out.gif", "7"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "must end in .mp4" in done.stderr
