"""The same short training for every preset: python benchmarks/family.py FOLDER [--presets NAME …] [--games NAME …].

300,000 steps are a fraction of what most papers train for, so schedules are shortened, all by one rule:

- ε reaches its end within 100,000 steps, and begins to fall at step 10,000 at the latest;
- learning and the agent's own actions begin at step 10,000 at the latest;
- the target network is copied every 8,000 steps or more often;
- what a preset spreads over its whole length, such as the importance exponent, is spread over the 300,000.

What is shorter in a preset stays as it is, and so does all else: loss, network, optimiser, batches, games at once.
A run is FOLDER/PRESET-GAME-sSEED. A run that was stopped goes on, and a whole one is left alone. Ctrl-C stops all.
`python benchmarks/add_result.py FOLDER/* --study family --machine …` records them, stopped ones too.
"""

import argparse
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

from pixelq import PixelqError, preset, train
from pixelq.config import PQNConfig, TrainConfig
from pixelq.presets import PRESETS

__all__ = ["STEPS", "main", "shortened"]

STEPS = 300_000
DECAY_STEPS = 100_000
BEGIN = 10_000
TARGET_PERIOD = 8_000


def shortened(config: TrainConfig) -> TrainConfig:
    """A recipe of `STEPS` steps, by the rule above."""
    exploration = replace(
        config.exploration,
        decay_steps=min(config.exploration.decay_steps, DECAY_STEPS),
        decay_from_step=min(config.exploration.decay_from_step, BEGIN),
        random_steps=min(config.exploration.random_steps, BEGIN),
    )
    if not isinstance(config.algo, PQNConfig):  # pqn has neither a replay buffer nor a target network
        replay = replace(config.replay, learn_start=min(config.replay.learn_start, BEGIN))
        period = min(config.target_period_steps, TARGET_PERIOD)
        config = replace(config, replay=replay, target_period_steps=period)
    return replace(
        config,
        total_steps=STEPS,
        stop_on="none",
        exploration=exploration,
        notebook_log=False,
        log_every_steps=2_000,
        video_every_episodes=0,
    )


def main(arguments: list[str]) -> int:
    """Train each preset on each game with each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS), metavar="NAME")
    parser.add_argument("--games", nargs="+", default=["breakout", "pong"], metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="SEED")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch and the kernels; 0: a thread a core")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    for seed, name, game in product(options.seeds, options.presets, options.games):
        run = options.folder / f"{name}-{game}-s{seed}"
        settings = {"game": game, "seed": seed, "threads": options.threads, "device": options.device}
        print(f"{run.name}:", flush=True)
        try:
            result = train(replace(shortened(preset(name)), **settings), run, progress="lines", or_resume=True)
        except PixelqError as error:
            print(f"family.py: {error}", file=sys.stderr)
            return 2
        if result.interrupted:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
