"""Agent files with random weights, for tests that need somebody to play."""

from pathlib import Path

import torch

from pixelq.agent import AgentCard, save_agent
from pixelq.config import DQNConfig, NetworkConfig
from pixelq.networks import make_network
from pixelq.run.checkpoint import CheckpointStore

NETWORK = NetworkConfig(channels=(4, 4, 4), hidden=16)
MEANINGS = {"breakout": ("NOOP", "FIRE", "RIGHT", "LEFT"), "catch": ("NOOP", "RIGHT", "LEFT")}


def card(game="catch", *, step=1_000, sticky=0.0, fire_after_life_loss=False):
    return AgentCard(
        game=game,
        action_meanings=MEANINGS[game],
        full_action_space=False,
        sticky=sticky,
        fire_after_life_loss=fire_after_life_loss,
        network=NETWORK,
        algo=DQNConfig(),
        preset="nature-dqn",
        step=step,
        seed=1,
    )


def weights(game="catch", seed=0):
    network = make_network(NETWORK, len(MEANINGS[game]), torch.Generator().manual_seed(seed))
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}


def write_agent(path: Path, game="catch", **facts):
    """An agent file of a game."""
    save_agent(path, weights(game), card(game, **facts))
    return path


def write_checkpoint(run: Path, step, game="catch", **facts):
    """A checkpoint with an agent, as a run writes it; each step has other weights."""
    store = CheckpointStore(run / "checkpoints")
    cards = {"agent": {"pixelq": card(game, step=step, **facts).to_json()}}
    store.save(step, {}, {"agent": weights(game, step)}, (), cards)
    return run
