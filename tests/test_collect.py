"""Offline datasets: Minari reads the games' pictures, and a seed with its actions gives the same game."""

import re
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv

import pixelq
import pixelq.evaluation.collect as collect_module
from agents import write_agent
from own_games import Dodge
from pixelq.cli.main import main
from pixelq.config import EnvConfig, ViewConfig, from_json
from pixelq.envs import make_envs
from pixelq.envs.testing import Catch
from pixelq.errors import PixelqError
from pixelq.evaluation.minari_folder import DatasetWriter
from pixelq.evaluation.players import RandomAgent
from pixelq.extras import install_command
from pixelq.run.seeding import stream_seed
from pixelq.run.storage import StorageError

minari = pytest.importorskip("minari", reason="needs minari: pip install 'pixelq[minari]'")
PAGE = Path(__file__).parents[1] / "docs" / "tools.md"


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """Where Minari keeps its datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def loaded(made):
    """A dataset, its episodes, what their metadata say, and what pixelq says of all."""
    dataset = minari.load_dataset(made.path.name)
    assert (len(dataset), dataset.total_steps) == (made.games, made.steps)
    episodes = list(dataset)
    said = list(dataset.storage.get_episode_metadata(range(len(dataset))))
    for episode, entry in zip(episodes, said, strict=True):
        steps = len(episode.actions)
        assert entry["total_steps"] == steps == len(episode.rewards)
        assert len(episode.observations) == steps + 1
        ends = episode.terminations | episode.truncations
        assert list(np.flatnonzero(ends)) == [steps - 1]  # whole games
    return dataset, episodes, [entry["seed"] for entry in said], dataset.storage.metadata["pixelq"]


def stacks_by_the_page(observations, name):
    """Run the code of docs/tools.md."""
    (block,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "minari" in text]
    scope = {}
    exec(compile(block.replace("breakout-v0", name), str(PAGE), "exec"), scope)
    assert np.array_equal(scope["episode"].observations, observations)  # the last one
    return scope["stacks"]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["nature", "dopamine"])
def test_ale_py_alone_plays_the_same_games_again(root, protocol):
    agent = write_agent(root / "agent.safetensors", "breakout", fire_after_life_loss=True)
    made = pixelq.collect(agent, root / "sets-v3", 300, protocol=protocol, max_frames=900, seed=4)
    _, episodes, seeds, said = loaded(made)
    assert made.games >= 2
    assert made.steps >= 300
    assert said["protocol"]["name"] == f"{protocol}, cap 900"
    assert said["agent"] == {**said["agent"], "game": "breakout", "preset": "nature-dqn"}
    env = said["env"]
    for episode, seed in zip(episodes, seeds, strict=True):
        games = AtariVectorEnv(
            said["game"],
            1,
            max_num_frames_per_episode=env["max_frames_per_game"],
            repeat_action_probability=env["sticky"],
            noop_max=env["noop_max"],
            use_fire_reset=env["fire_at_start"],
            reward_clipping=False,
        )
        obs, info = games.reset(seed=np.array([seed]))
        shown, lives = [obs[0].copy()], [info["lives"][0]]
        for t, action in enumerate(episode.actions):
            obs, reward, terminated, truncated, info = games.step(np.array([action]))
            shown.append(obs[0].copy())
            lives.append(info["lives"][0])
            assert reward[0] == episode.rewards[t]
            assert (terminated[0], truncated[0]) == (episode.terminations[t], episode.truncations[t])
        games.close()
        assert np.array_equal(np.stack(shown)[:, -1], episode.observations)
        assert np.array_equal(lives, episode.infos["lives"])
    assert np.array_equal(stacks_by_the_page(episode.observations, "sets-v3"), np.stack(shown))


@pytest.mark.slow
def test_games_side_by_side_are_all_there_and_the_same_again(root, monkeypatch):
    monkeypatch.setattr(collect_module, "_STEPS_FOR_ONE", 100)
    agent = write_agent(root / "agent.safetensors")
    told = []
    made = pixelq.collect(
        agent, root / "a-v0", 500, epsilon=0.3, seed=2, progress=lambda done, all_: told.append((done, all_))
    )
    dataset, episodes, seeds, said = loaded(made)
    assert made.steps >= 500
    # the games that began first, however long they were
    assert set(seeds) == {stream_seed(2, f"collected game {number}") for number in range(made.games)}
    assert told[-1] == (500, 500)
    assert dataset.storage.metadata["algorithm_name"] == "pixelq dqn"
    assert said["stack"] == 4
    assert made.mean == pytest.approx(np.mean([episode.rewards.sum() for episode in episodes]))
    for episode, seed in zip(episodes, seeds, strict=True):
        games = Catch(1, seed)
        result = games.reset()
        shown, rewards = [result.obs[0]], []
        for action in episode.actions:
            games.send(np.array([action]))
            result = games.recv()
            shown.append(result.obs[0])
            rewards.append(result.reward[0])
        assert np.array_equal(np.stack(shown)[:, -1], episode.observations)
        assert np.array_equal(rewards, episode.rewards)
        assert result.terminated[0] or result.truncated[0]
        assert "lives" not in episode.infos
    assert np.array_equal(stacks_by_the_page(episodes[-1].observations, "a-v0"), np.stack(shown))
    _, again, same, _ = loaded(pixelq.collect(agent, root / "b-v0", 500, epsilon=0.3, seed=2))
    assert same == seeds
    assert all(np.array_equal(one.actions, other.actions) for one, other in zip(episodes, again, strict=True))


def test_a_game_in_colour_has_three_planes_a_step(root):
    player = RandomAgent("own_games:make", ViewConfig(frame_skip=1, colour=True, height=48, width=60, stack=2))
    made = pixelq.collect(player, root / "colour-v0", 60, seed=3)
    _, episodes, seeds, said = loaded(made)
    env = from_json(EnvConfig, said["env"])
    for number, episode in enumerate(episodes):
        games = make_envs(player.game, 1, stream_seed(3, f"collected game {number}"), env, 1)
        result = games.reset()
        shown, lives = [result.obs[0]], [result.lives[0]]
        for action in episode.actions:
            games.send(np.array([action]))
            result = games.recv()
            shown.append(result.obs[0])
            lives.append(result.lives[0])
        games.close()
        assert np.array_equal(np.stack(shown)[:, 3:], episode.observations)
        assert np.array_equal(np.stack(shown)[1:, :3], episode.observations[:-1])
        assert np.array_equal(lives, episode.infos["lives"])
        alone = Dodge()  # the environment itself knows the seed
        first, _ = alone.reset(seed=seeds[number])
        assert np.array_equal(first.transpose(2, 0, 1), episode.observations[0])


def test_the_verb_says_what_it_wrote(root, capsys):
    agent = write_agent(root / "agent.safetensors")
    (root / "catch-v1").mkdir()  # empty: fine
    words = ["collect", str(agent), "--out", str(root / "catch-v1"), "--steps", "100", "--epsilon", "0.5"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("protocol nature, ε 0.5")
    assert re.fullmatch(r"\d+ games, \d+ steps, mean raw score -?[\d.]+", lines[1])
    assert lines[-1] == f'to read it: MINARI_DATASETS_PATH={root} and minari.load_dataset("catch-v1")'
    assert minari.load_dataset("catch-v1").total_steps >= 100
    assert main(words) == 2
    assert "catch-v1 is there and not empty: name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--out sets", "--out sets: Minari needs a folder's name of letters, digits, - and _ that ends in a version"),
        ("--out a.b-v0", "--out a.b-v0: Minari needs a folder's name"),
        ("--out file-v0", "--out file-v0 is a file: name a new folder"),
        ("--out file-v0/a-v0", "--out file-v0/a-v0 cannot be made: "),
        ("--out a-v0 --steps 0", "--steps is 0: must be between 1 and 1,000,000,000"),
        ("--out a-v0 --seed -1", "--seed is -1: must be between 0 and"),
        ("--out a-v0 --max-frames 600000", "--max-frames is 600000: Minari reads games of 524,284 frames at most"),
        ("--out a-v0 --protocol natur", 'unknown protocol "natur" (did you mean "nature"?)'),
        ("", "--out is missing"),
    ],
)
def test_what_cannot_be_collected_is_one_line(root, monkeypatch, capsys, words, says):
    monkeypatch.chdir(root)
    Path("file-v0").write_text("mine")
    assert main(["collect", "random", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"pixelq: {says}")
    assert err.count("\n") == 1
    assert [path.name for path in root.iterdir()] == ["file-v0"]


def test_without_the_library_the_extra_is_named(root, monkeypatch, capsys):
    monkeypatch.setattr("pixelq.extras.importlib.util.find_spec", lambda name: None)
    assert main(["collect", "random", "--out", str(root / "a-v0")]) == 2
    assert capsys.readouterr().err == f"pixelq: this needs minari and pyarrow: {install_command('minari')}\n"


@pytest.mark.parametrize(
    ("failure", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, ""), StorageError)]
)
def test_half_a_dataset_is_none(root, monkeypatch, failure, raised):
    append, written = DatasetWriter.append, count()

    def fail(self, game):
        if next(written) == 1:
            raise failure
        append(self, game)

    monkeypatch.setattr(DatasetWriter, "append", fail)
    with pytest.raises(raised):
        pixelq.collect("random", root / "a-v0", 300, game="catch")
    assert list(root.iterdir()) == []


def test_the_folder_may_be_a_relative_path(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert main(["collect", "random", "--game", "catch", "--out", "sets/a-v0", "--steps", "60"]) == 0
    assert f"MINARI_DATASETS_PATH={root / 'sets'} " in capsys.readouterr().out
    assert [path.name for path in (root / "sets").iterdir()] == ["a-v0"]
    monkeypatch.setenv("MINARI_DATASETS_PATH", "sets")
    assert minari.load_dataset("a-v0").total_steps >= 60


def test_an_agent_of_another_game_is_refused(root):
    agent = write_agent(root / "agent.safetensors")
    with pytest.raises(PixelqError, match="this agent plays catch"):
        pixelq.collect(agent, root / "a-v0", 10, game="pong")
    with pytest.raises(PixelqError, match="--seed is -1: must be at least 0"):
        pixelq.collect(agent, root / "a-v0", 10, seed=-1)
