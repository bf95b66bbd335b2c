"""The actor: epsilon-greedy choice of actions, one batched forward for all games."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pixelq.config import ExplorationConfig
from pixelq.engines import Acting
from pixelq.networks import OnnxNetwork, QNetwork
from pixelq.schedules import exponential, linear

__all__ = ["Actor", "epsilon_at", "epsilon_greedy", "greedy_actions"]


def epsilon_at(config: ExplorationConfig, step: int) -> float:
    """Probability of a random action after `step` steps are done; the next is step number `step + 1`."""
    if step + 1 < config.random_steps:
        return 1.0
    if config.off_after_step and step >= config.off_after_step:
        return 0.0
    shape = linear if config.shape == "linear" else exponential
    return shape(step, config.start, config.end, config.decay_steps, config.decay_from_step)


@torch.inference_mode()
def greedy_actions(network: QNetwork | OnnxNetwork, obs: NDArray[np.uint8], device: torch.device) -> NDArray[np.int64]:
    """The actions of highest value, [N, 4, 84, 84] uint8 to [N] int64."""
    values = network.q_values(torch.from_numpy(obs).to(device))
    return values.argmax(dim=1).cpu().numpy()


def epsilon_greedy(
    generator: np.random.Generator,
    num_games: int,
    num_actions: int,
    epsilon: float,
    greedy: Callable[[], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Choose at random with probability ε, independently for each game; else greedily.

    Args:
        generator: random generator; every call draws the same number of values.
        num_games: N.
        num_actions: A.
        epsilon: probability of a random action.
        greedy: gives the greedy actions [N]; called only if one is needed.

    Returns:
        [N] int64.
    """
    explore = generator.random(num_games) < epsilon
    actions = generator.integers(0, num_actions, num_games)
    return actions if explore.all() else np.where(explore, actions, greedy())


class Actor:
    """Chooses actions for N games at once.

    Args:
        acting: computes values.
        num_actions: number of actions.
        fire: the action to press after a lost life, or None to press nothing.
        generator: random generator for ε.
        chosen: returns actions that were chosen elsewhere; None: choose them here.

    Source: Mnih et al. 2015, Methods; FIRE after a lost life as `FireResetEnv` of OpenAI Baselines.
    """

    def __init__(
        self,
        acting: Acting,
        num_actions: int,
        fire: int | None,
        generator: np.random.Generator,
        chosen: Callable[[], NDArray[np.int64]] | None = None,
    ) -> None:
        self._acting = acting
        self._chosen = chosen
        self._num_actions = num_actions
        self._fire = fire
        self.generator = generator

    @property
    def noise(self) -> torch.Generator:
        """The source of the noise of noisy layers."""
        return self._acting.noise

    def act(
        self,
        obs: NDArray[np.uint8],
        epsilon: float,
        life_lost: NDArray[np.bool_],
        remember: Callable[[], None] = lambda: None,
    ) -> NDArray[np.int64]:
        """Choose an action for every game.

        Args:
            obs: [N, 4, 84, 84] current observations.
            epsilon: probability of a random action, independent for each game.
            life_lost: [N] games that lost a life at the last step and continue.
            remember: stores `obs` in the replay buffer, if that was postponed; called if the choice needs it.

        Returns:
            [N] int64.
        """
        if self._chosen is not None:
            return self._chosen()
        return self._choose(lambda: self._acting.current_values(obs, remember).argmax(axis=1), epsilon, life_lost)

    def act_with_values(
        self, obs: NDArray[np.uint8], epsilon: float, life_lost: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Like `act`, but also return the values of all actions.

        Returns:
            [N] int64 actions and [N, A] float32 values.
        """
        values = self.q_values(obs)
        return self._choose(lambda: values.argmax(axis=1), epsilon, life_lost), values

    def q_values(self, obs: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Values of all actions, [N, 4, 84, 84] uint8 to [N, A] float32; waits for the device."""
        return self._acting.q_values(obs)

    def _choose(
        self, greedy: Callable[[], NDArray[np.int64]], epsilon: float, life_lost: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        actions = epsilon_greedy(self.generator, len(life_lost), self._num_actions, epsilon, greedy)
        if self._fire is not None:
            actions[life_lost] = self._fire
        return actions
