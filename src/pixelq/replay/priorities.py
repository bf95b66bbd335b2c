"""Prioritised sampling: transitions with larger errors are drawn more often."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixelq.replay.ring import Ring
from pixelq.replay.samplers import Draw
from pixelq.replay.sumtree import SumTree

__all__ = ["PRIORITY_BYTES", "Priorities"]

PRIORITY_BYTES = 32  # a slot at most, in the tree


class Priorities:
    """The priority of every slot of a ring, and draws in proportion to them.

    A slot's priority is (|error| + ε)^α. It is 0 while the slot is no transition: before its n steps are known, for a
    game's final observation, once its stack reaches past the oldest row. A new transition gets the highest priority
    there ever was, so that it is soon drawn.

    Args:
        ring: the ring to draw from.
        n_step: steps that must be known after each transition.
        exponent: α, 0 draws uniformly.
        epsilon: ε, added to the size of an error.
        kernels: as in `SumTree`.

    Source: Schaul et al. 2016, "Prioritized experience replay", section 3.3 (proportional) and algorithm 1.
    """

    def __init__(self, ring: Ring, n_step: int, exponent: float, epsilon: float, kernels: bool = True) -> None:
        self._ring = ring
        self._n_step = n_step
        self._exponent = exponent
        self._epsilon = epsilon
        self._tree = SumTree(ring.rows * ring.num_envs, kernels)
        self._highest = 1.0
        self._envs = np.arange(ring.num_envs)
        self._learned: tuple[Draw, Tensor] | None = None

    def appended(self) -> None:
        """The ring has opened a new row: one more row of transitions is complete, others may have become invalid."""
        self._settle()
        ring = self._ring
        fresh = ring.head - self._n_step
        # the head took the place of the row before the oldest; stacks of the rows after that may be cut now
        cut = ring.shape.stack if ring.oldest > ring.first else 0
        rows = np.append(ring.oldest - 1 + np.arange(cut), fresh)
        rows, envs = rows.repeat(ring.num_envs), np.tile(self._envs, len(rows))
        slots = self._slots(rows, envs)
        values = np.where(rows == fresh, self._highest, self._tree.leaves[slots])
        self._tree.set(slots, values * ring.is_transition(rows, envs, self._n_step))

    def draw(
        self, batch_size: int, importance_exponent: float, generator: np.random.Generator, batches: int = 1
    ) -> Draw:
        """Draw transitions with probability in proportion to their priority, one from each of B equal shares.

        Args:
            batch_size: how many, B.
            importance_exponent: β, how far weights correct the unequal probabilities; 1: fully.
            generator: the only random generator.
            batches: number of batches, one after the other.

        Returns:
            Transitions with weights (M · probability)^−β, M transitions being held, over the largest in the batch.

        Raises:
            ValueError: the ring holds no transition.
        """
        self._settle()
        if not self._tree.total > 0:
            raise ValueError("the replay buffer holds no transition yet")
        shares = np.arange(batch_size) + generator.random((batches, batch_size))
        slots = self._tree.find((shares / batch_size * self._tree.total).reshape(-1))
        priorities = self._tree.leaves[slots].reshape(shares.shape)
        # the total and the number of transitions cancel out
        weight = ((priorities / priorities.min(axis=1, keepdims=True)) ** -importance_exponent).reshape(-1)
        at, envs = np.divmod(slots, self._ring.num_envs)
        oldest = self._ring.oldest
        return Draw(oldest + (at - oldest) % self._ring.rows, envs, weight.astype(np.float32))

    def learned(self, draw: Draw, errors: Tensor) -> None:
        """Take the errors of a learned batch.

        They become priorities before the next draw or the next row, not now, so that nothing waits for the device.

        Args:
            draw: the batch, as it was drawn; slots overwritten since stay as they are.
            errors: [B] on any device; one that is no finite number changes nothing.
        """
        self._settle()
        self._learned = (draw, errors)

    def _settle(self) -> None:
        """Turn the errors of the last batch into priorities."""
        if self._learned is None:
            return
        (rows, envs, _), errors = self._learned
        self._learned = None
        sizes = np.abs(errors.double().cpu().numpy())
        good = np.isfinite(sizes)
        values = (np.where(good, sizes, 0.0) + self._epsilon) ** self._exponent
        self._highest = max(self._highest, float(values[good].max(initial=0.0)))
        good &= self._ring.is_transition(rows, envs, self._n_step)
        self._tree.set(self._slots(rows[good], envs[good]), values[good])

    def _slots(self, rows: NDArray[np.int64], envs: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows % self._ring.rows * self._ring.num_envs + envs

    def state(self) -> dict[str, NDArray[np.float64]]:
        """All leaves [slots], and the highest priority there ever was []."""
        self._settle()
        return {"leaves": self._tree.leaves.copy(), "highest": np.array(self._highest)}

    def restore(self, state: Mapping[str, NDArray[np.float64]]) -> None:
        """The inverse of `state`, after the ring's rows are back.

        Raises:
            ValueError: of a ring of another size.
        """
        if state["leaves"].shape != self._tree.leaves.shape:
            raise ValueError(f"priorities of {len(state['leaves']):,} slots, not {len(self._tree.leaves):,}")
        self._tree.rebuild(state["leaves"])
        self._highest = float(state["highest"])
