"""Rewards and ends for learning: clipped or scaled rewards; with `life_loss_terminal` a lost life ends the episode."""

import numpy as np
from numpy.typing import NDArray

from pixelq.config import EnvConfig
from pixelq.envs import StepResult

__all__ = ["learning_rewards", "learning_terminated"]


def learning_rewards(config: EnvConfig, result: StepResult) -> NDArray[np.float32]:
    """The rewards [N], their sign, or scaled."""
    if config.rewards == "raw":
        return result.reward
    return np.sign(result.reward) if config.rewards == "sign" else result.reward * np.float32(config.reward_scale)


def learning_terminated(config: EnvConfig, result: StepResult, life_lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where an episode ended [N]: with the game, or with a life."""
    return result.terminated | life_lost if config.life_loss_terminal else result.terminated
