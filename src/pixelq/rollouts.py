"""The memory of an algorithm without replay: one rollout of N games, then minibatches of it."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.config import ATARI_SHAPE, ObsShape
from pixelq.device import send, to_device
from pixelq.types import Rollout, RolloutBatch

__all__ = ["Rollouts"]


class Rollouts:
    """T steps of N games, written step by step into the same memory every time.

    Args:
        rollout_steps: T.
        num_envs: games N.
        device: where batches go.
        generator: random generator of the minibatches.
        obs: shape of the observations.

    Source: Gallici et al. 2024, "Simplifying deep temporal difference learning", Algorithm 1.
    """

    def __init__(
        self,
        rollout_steps: int,
        num_envs: int,
        device: torch.device,
        generator: np.random.Generator,
        obs: ObsShape = ATARI_SHAPE,
    ) -> None:
        self.generator = generator
        self._device = device
        self._t = 0
        shape = (rollout_steps, num_envs)
        self._obs = torch.zeros((*shape, *obs.obs), dtype=torch.uint8, device=device)
        self._actions = np.zeros(shape, np.int64)
        self._rewards = np.zeros(shape, np.float32)
        self._terminated = np.zeros(shape, np.bool_)
        self._truncated = np.zeros(shape, np.bool_)
        self._ignored = np.zeros(shape, np.bool_)
        self._values = np.zeros(shape, np.float32)  # of the observation before the step

    @property
    def full(self) -> bool:
        """Whether all T steps are there."""
        return self._t == len(self._obs)

    def describe(self) -> str:
        """Its contents and memory, in words."""
        steps, games = self._actions.shape
        return f"rollouts of {steps} steps of {games} games, {self._obs.nbytes / 1e6:.0f} MB"

    def append(
        self,
        obs: NDArray[np.uint8],
        values: NDArray[np.float32],
        actions: NDArray[np.int64],
        rewards: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        ignored: NDArray[np.bool_],
    ) -> None:
        """Store a step of all games; the first after a whole rollout begins the next.

        Args:
            obs: [N, 4, 84, 84] before the step.
            values: [N] max_a q of `obs`.
            actions: [N] executed.
            rewards: [N] learning rewards that followed.
            terminated: [N] the episode ended there, for learning.
            truncated: [N] the game was cut off there.
            ignored: [N] the action was ignored, and the observation that followed starts a new game.
        """
        at = self._t = 0 if self.full else self._t
        send(obs, self._obs[at])
        self._values[at] = values
        self._actions[at], self._rewards[at] = actions, rewards
        self._terminated[at], self._truncated[at], self._ignored[at] = terminated, truncated, ignored
        self._t += 1

    def rollout(self, last_values: NDArray[np.float32]) -> Rollout:
        """The whole rollout, its observations on the device, the rest on the CPU; overwritten by the next.

        Args:
            last_values: [N] max_a q of the observation after the last step.
        """
        assert self.full
        arrays = (self._actions, self._rewards, self._terminated, self._truncated, self._ignored)
        v_t = np.concatenate([self._values[1:], last_values[None]])
        return Rollout(self._obs, *(torch.from_numpy(array) for array in (*arrays, v_t)))

    def observations(self, count: int, generator: np.random.Generator) -> Tensor:
        """Observations of the newest rollout, drawn uniformly, [count, 4, 84, 84] uint8 on the device."""
        games = self._actions.shape[1]
        at = generator.integers(0, max(self._t, 1) * games, count)
        return self._obs[at // games, at % games]

    def minibatches(self, rollout: Rollout, returns: Tensor, count: int) -> Iterator[RolloutBatch]:
        """One pass over a rollout in random order, in `count` parts of nearly equal size, on the device.

        Ignored steps come along with weight 0, so that all parts keep their size.

        Args:
            rollout: of this memory.
            returns: [T, N] float32.
            count: parts.
        """
        obs, actions = rollout.obs_tm1.flatten(0, 1), rollout.a_tm1.flatten()
        targets, weights = returns.flatten(), (~rollout.ignored_t).float().flatten()
        tensors = [to_device(tensor, self._device) for tensor in (obs, actions, targets, weights)]
        order = to_device(self.generator.permutation(len(actions)), self._device)
        for at in order.tensor_split(count):
            yield RolloutBatch(*(tensor[at] for tensor in tensors))
