"""One run, many processes: what actors bring, and what a step of theirs costs on the way.

    python benchmarks/actors.py [--only speed bytes intake] [--actors 1 2 4 8] [--seconds 20] [--game breakout] [--json]

speed: whole runs on a Ray cluster of this machine, of a game that sleeps 5 ms a step: steps a second by number of
actors, against as many times those of one. Each is measured from its 300th row of steps on.
bytes: an actor plays 8 games by the agent that comes with pixelq (or, of another game, at random); bytes a transition.
intake: what the learner's process can take in: rows read and put into the replay memory, in one thread.
The last line with --json is one JSON document.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])

import gymnasium as gym
import numpy as np

from pixelq import RayActors, load_agent, preset, train
from pixelq.config import ObsShape, TrainConfig
from pixelq.distributed.batches import RowReader
from pixelq.distributed.player import Player, make_player, pack_weights
from pixelq.envs import make_envs
from pixelq.replay import ReplayBuffer
from pixelq.training.parts import resolve

SLEEP_SECONDS = 0.005
WARM_ROWS = 300
BATCHES = 40


class Slow(gym.Env):
    """Noise to look at; a step takes 5 ms, in which the processor is free."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (84, 84, 1), np.uint8)
        self.action_space = gym.spaces.Discrete(3)
        self.render_mode = "rgb_array"
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Start."""
        super().reset(seed=seed)
        self._steps = 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Sleep."""
        time.sleep(SLEEP_SECONDS)
        self._steps += 1
        return self._obs(), float(action == 1), self._steps == 200, False, {}

    def render(self) -> Any:
        """For people."""
        return np.repeat(self._obs(), 3, axis=2)

    def _obs(self) -> Any:
        obs = np.full((84, 84, 1), 20, np.uint8)
        obs[self._steps % 84] = 200
        return obs


def slow() -> gym.Env:
    return Slow()


class Stopwatch:
    """A callback that ends the run when it has run for some seconds after its first rows."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.rows, self.began, self.speed = seconds, 0, (0.0, 0), 0.0

    def on_step(self, run: Any) -> None:
        """Look at the clock."""
        self.rows += 1
        if self.rows == WARM_ROWS:
            self.began = time.monotonic(), run.step
        if self.rows > WARM_ROWS:
            spent = time.monotonic() - self.began[0]
            if spent >= self.seconds:
                self.speed = (run.step - self.began[1]) / spent
                run.stop()


def slow_run(actors: int) -> TrainConfig:
    """A run whose learner has next to nothing to do."""
    base = preset("cleanrl-dqn")
    return dataclasses.replace(
        base,
        game="actors:slow",
        envs=1,
        threads=1,
        total_steps=10**7,
        checkpoint_every_steps=10**7,
        video_every_episodes=0,
        network=dataclasses.replace(base.network, channels=(4, 4, 4), hidden=16),
        replay=dataclasses.replace(base.replay, capacity=5_000, learn_start=100, batch_size=8, train_period=64),
    )


def speeds(numbers: list[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Steps a second by number of actors."""
    alone = None
    for actors in numbers:
        watch = Stopwatch(seconds)
        with tempfile.TemporaryDirectory() as folder:
            train(
                slow_run(actors),
                Path(folder) / "run",
                progress="none",
                callbacks=[watch],
                actors=RayActors("local", actors),
            )
        alone = watch.speed / actors if alone is None else alone
        yield {"actors": actors, "steps_per_second": watch.speed, "of_linear": watch.speed / (alone * actors)}


def player_of(game: str) -> tuple[Player, bytes, TrainConfig]:
    """An actor of eight games that plays as the agent that comes with pixelq, if it plays this game."""
    config = dataclasses.replace(preset("fast"), game=game, envs=8, device="cpu", threads=1)
    weights = b""
    if config.game == "breakout":
        agent = load_agent("breakout")
        config = dataclasses.replace(config, network=agent.card.network)
        weights = pack_weights(agent.network.state_dict())
    config = resolve(config)
    return make_player(config, 3, 4, "a benchmark"), weights, config


def rows_of(batch: bytes) -> int:
    """Steps of a batch: on a busy machine an actor sends fewer than 32 at once."""
    return RowReader(batch, 8, 18, ObsShape()).rows


def bytes_a_transition(game: str) -> dict[str, Any]:
    """What an actor sends, without the header of the network's own packets."""
    player, weights, _ = player_of(game)
    player.play(weights or None)
    began = time.process_time()
    batches = [player.play() for _ in range(BATCHES)]
    spent = time.process_time() - began
    player.close()
    sent, steps = sum(map(len, batches)), 8 * sum(rows_of(batch) for batch in batches)
    return {
        "game": game,
        "bytes_per_transition": sent / steps,
        "transitions": steps,
        "actor_steps_per_cpu_second": steps / spent,
        "weights_bytes": len(weights),
    }


def intake(game: str) -> dict[str, Any]:
    """Transitions a second that one thread reads and remembers."""
    player, _, config = player_of(game)
    batches = [player.play() for _ in range(BATCHES)]
    player.close()
    envs = make_envs(game, 1, 1, config.env, 1)
    spec, num_actions = envs.spec, len(envs.action_meanings)
    envs.close()
    replay = dataclasses.replace(config.replay, capacity=20_000, store="lz4")
    memory = ReplayBuffer(replay, 8, 0.99, 1, *_cpu())
    memory.ring.start(np.zeros((8, 84, 84), np.uint8))
    began, steps = time.process_time(), 0
    for batch in batches:
        reader = RowReader(batch, 8, num_actions, spec.obs)
        while reader.left:
            row = reader.read()
            actions = row.actions.astype(np.int64)
            memory.append(actions, row.reward, row.terminated, row.truncated, row.reset, row.pictures)
            steps += 8
    return {"transitions_per_cpu_second": steps / (time.process_time() - began)}


def _cpu() -> tuple[Any, np.random.Generator]:
    import torch

    return torch.device("cpu"), np.random.default_rng(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("speed", "bytes", "intake"), default=["speed", "bytes", "intake"])
    parser.add_argument("--actors", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--game", default="breakout")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    if "bytes" in options.only:
        found["bytes"] = bytes_a_transition(options.game)
        print(found["bytes"], flush=True)
    if "intake" in options.only:
        found["intake"] = intake(options.game)
        print(found["intake"], flush=True)
    if "speed" in options.only:
        found["speed"] = []
        for one in speeds(options.actors, options.seconds):
            found["speed"].append(one)
            print(one, flush=True)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
