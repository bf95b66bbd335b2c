"""What a game of Breakout takes in Minari's formats, and what its JPEG pictures do to an agent's values.

pip install 'minari[hdf5,arrow]' pillow
python benchmarks/minari_size.py [--steps 1000]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import lz4.block
import numpy as np
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from pixelq.agent import load_agent
from pixelq.evaluation.players import make_games
from pixelq.evaluation.protocols import find_protocol


def play(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Stacks [steps + 1, 4, 84, 84] and actions of the agent that comes with pixelq."""
    agent = load_agent("breakout")
    games = make_games(agent, find_protocol("nature"), 1, 1, 1)
    stacks, actions = [games.reset().obs[0].copy()], []
    for _ in range(steps):
        games.send(agent.act(stacks[-1][None]))
        actions.append(0)
        stacks.append(games.recv().obs[0].copy())
    games.close()
    return np.stack(stacks), np.asarray(actions)


def write(observations: np.ndarray, actions: np.ndarray, form: str, jpeg: bool) -> tuple[float, float, np.ndarray]:
    """Bytes a step, microseconds a step, and the observations as they are read again."""
    space = gym.spaces.Box(0, 255, observations.shape[1:], np.uint8)
    count = len(actions)
    ends = [False] * (count - 1) + [True]
    with tempfile.TemporaryDirectory() as folder:
        storage = MinariStorage.new(
            folder, observation_space=space, action_space=gym.spaces.Discrete(4), data_format=form, jpeg_encoding=jpeg
        )
        episode = EpisodeBuffer(0, 1, None, list(observations), list(actions), [0.0] * count, ends, [False] * count)
        start = time.perf_counter()
        storage.update_episodes([episode])
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        read = next(iter(storage.get_episodes([0])))["observations"]
        return size / count, seconds / count * 1e6, np.asarray(read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000)
    stacks, actions = play(parser.parse_args().steps)
    planes = stacks[:, -1]
    agent = load_agent("breakout")
    sizes = [len(lz4.block.compress(plane.tobytes(), store_size=False)) for plane in planes]
    print(json.dumps({"LZ4, a plane each": round(float(np.mean(sizes)))}))
    for name, observations, form, jpeg in (
        ("stacks, hdf5", stacks, "hdf5", True),
        ("planes, hdf5, raw", planes, "hdf5", False),
        ("planes, parquet, raw", planes, "parquet", False),
        ("planes, hdf5, JPEG", planes, "hdf5", True),
    ):
        size, micros, read = write(observations, actions, form, jpeg)
        line = {name: round(size), "write_us": round(micros), "lossless": bool(np.array_equal(read, observations))}
        if not line["lossless"]:
            again = np.stack([read[index : index + 4] for index in range(len(read) - 3)])
            first = agent.q_values(np.ascontiguousarray(stacks[3:]))
            other = agent.q_values(np.ascontiguousarray(again))
            line["other_actions"] = round(float((first.argmax(1) != other.argmax(1)).mean()), 3)
            line["largest_value_error"] = round(float(np.abs(first - other).max()), 3)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
