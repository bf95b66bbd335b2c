"""Sampling on the learning device: the ring's scalars are mirrored there, and nothing waits for the host."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.config import ReplayConfig
from pixelq.device import restore_generator_on, send
from pixelq.graphs import Graph
from pixelq.replay.block_sums import BlockSums
from pixelq.replay.frames import DeviceFrames
from pixelq.replay.ring import Ring
from pixelq.types import Batch

__all__ = ["DeviceDraw", "DeviceSampler"]

_ROW_FIELDS = 8  # slots, action, reward, terminated, truncated, ignored; slots and ages of the new head
_CHANGED_FIELDS = 3  # slots with a changed priority, which of them are new, which are transitions
_LEAST_PRIORITY = 1e-300


class DeviceDraw(NamedTuple):
    """The starts of a batch's transitions, with their weights."""

    slots: Tensor  # [B] int64, position in the ring times N plus game
    weight: Tensor  # [B] float32, importance weights, the largest 1


class DeviceSampler:
    """Draws, stacks, returns and priorities as tensor operations, for a ring with its planes on the device.

    It draws like `Priorities`, one transition from each of B equal shares of the priorities' sum. For uniform sampling
    all priorities stay 1. `draw`, `batch` and `learned` read no host data, so that a graph can record them together
    with the update between them. Rows come from the host in one copy each.

    Args:
        ring: rows; stays the one that checkpoints are made of.
        frames: the ring's store.
        config: how to sample.
        gamma: discount a step.
        n_step: rewards summed before bootstrapping.
        device: the device of all tensors.
        seed: of the device's random generator.

    Source: as `Priorities` and `TransitionReader`.
    """

    def __init__(
        self,
        ring: Ring,
        frames: DeviceFrames,
        config: ReplayConfig,
        gamma: float,
        n_step: int,
        device: torch.device,
        seed: int,
    ) -> None:
        self._ring, self._frames = ring, frames
        self._config = config
        self._prioritised = config.sampling == "prioritised"
        self._gamma, self._n_step = gamma, n_step
        self._device = device
        self.generator = torch.Generator(device).manual_seed(seed)
        self._slots = ring.rows * ring.num_envs
        self._actions = torch.zeros(self._slots, dtype=torch.int64, device=device)
        self._rewards = torch.zeros(self._slots, dtype=torch.float64, device=device)
        flags = torch.zeros(3, self._slots, dtype=torch.bool, device=device)
        self._terminated, self._truncated, self._ignored = flags
        self._ages = torch.zeros(self._slots, dtype=torch.int64, device=device)
        self._priorities = BlockSums(self._slots, device)
        self._highest = torch.ones(1, dtype=torch.float64, device=device)
        self._envs = np.arange(ring.num_envs)
        self._head = torch.arange(ring.num_envs, device=device)  # slots of the head row
        numbers = (_ROW_FIELDS + _CHANGED_FIELDS * (ring.shape.stack + 1)) * ring.num_envs
        self._row = torch.zeros(numbers, dtype=torch.float64, device=device)  # the host's data of a new row
        self._take = Graph(self._take_row, device)

    def appended(self) -> None:
        """The ring has opened a new row: copy its data, and the rows with stacks that it cuts."""
        ring, n_envs = self._ring, self._ring.num_envs
        done, head = (ring.head - 1) % ring.rows, ring.head % ring.rows
        fresh = ring.head - self._n_step
        stack = ring.shape.stack
        rows = np.append(ring.oldest - 1 + np.arange(stack), fresh).repeat(n_envs)
        envs = np.tile(self._envs, stack + 1)
        numbers = np.concatenate(
            [
                *(done * n_envs + self._envs, ring.actions[done], ring.rewards[done]),
                *(ring.terminated[done], ring.truncated[done], ring.ignored[done]),
                *(head * n_envs + self._envs, ring.ages[head]),
                *(rows % ring.rows * n_envs + envs, rows == fresh, ring.is_transition(rows, envs, self._n_step)),
            ],
            dtype=np.float64,  # holds all of them exactly
        )
        send(numbers, self._row)
        self._take()

    def _take_row(self) -> None:
        n_envs = self._ring.num_envs
        row, changed = self._row[: _ROW_FIELDS * n_envs], self._row[_ROW_FIELDS * n_envs :]
        slots, action, reward, *flags, head, ages = row.view(_ROW_FIELDS, n_envs)
        done = slots.long()
        self._actions.index_copy_(0, done, action.long())
        self._rewards.index_copy_(0, done, reward)
        for mine, flag in zip((self._terminated, self._truncated, self._ignored), flags, strict=True):
            mine.index_copy_(0, done, flag.bool())
        self._head.copy_(head)
        self._ages.index_copy_(0, self._head, ages.long())
        slots, fresh, transition = changed.view(_CHANGED_FIELDS, -1)
        at = slots.long()
        values = torch.where(fresh.bool(), self._highest, self._priorities.values[at])
        self._priorities.set(at, values * transition)

    def newest(self) -> Tensor:
        """The games' present observations, [N, 4, 84, 84] uint8, from planes on the device."""
        return self._observations(self._head)

    def draw(self, batch_size: int, importance_exponent: Tensor) -> DeviceDraw:
        """Draw transitions with probability in proportion to their priority, one from each of B equal shares.

        Args:
            batch_size: how many, B.
            importance_exponent: β, [] float64 on the device.
        """
        return self.draw_at(self.shares(batch_size), importance_exponent)

    def shares(self, batch_size: int) -> Tensor:
        """Random targets for `draw`: [B] float64 shares of the priorities' sum, one from each of B equal parts."""
        offsets = torch.rand(batch_size, dtype=torch.float64, device=self._device, generator=self.generator)
        return (torch.arange(batch_size, device=self._device) + offsets) / batch_size

    def draw_at(self, shares: Tensor, importance_exponent: Tensor) -> DeviceDraw:
        """The same at given shares [B] float64 of the priorities' sum, each in [0, 1)."""
        slots = self._priorities.find(shares)
        # a sum of many parts may round so that a slot of priority 0 is found: no division by 0 then
        priorities = self._priorities.values[slots].clamp_min(_LEAST_PRIORITY)
        weight = (priorities / priorities.min()).pow(-importance_exponent)
        return DeviceDraw(slots, weight.float())

    def batch(self, draw: DeviceDraw) -> Batch:
        """The drawn transitions; shapes are in `pixelq.types.Batch`."""
        returns, discounts, ends = self._n_step_returns(draw.slots)
        stacks = self._observations(torch.cat([draw.slots, ends]))
        obs_tm1, obs_t = stacks.chunk(2)
        actions = self._actions[draw.slots]
        return Batch(obs_tm1, actions, returns.float(), discounts.float(), obs_t, draw.weight)

    def _observations(self, slots: Tensor) -> Tensor:
        """Those of slots [K], [K, 4, 84, 84]."""
        return self._frames.gather(self._planes(slots)).view(len(slots), *self._ring.shape.obs)

    def _planes(self, slots: Tensor) -> Tensor:
        """Slots of the planes [K, 4] that make up the observations of slots [K]."""
        back = torch.arange(self._ring.shape.stack - 1, -1, -1, device=self._device)
        planes = self._later(slots[:, None], -back)
        return planes.masked_fill(back > self._ages[slots][:, None], self._frames.no_plane)

    def _later(self, slots: Tensor, rows: Tensor | int) -> Tensor:
        """The slots of the same games some rows later, or earlier if negative; not more than the ring has."""
        later = slots + rows * self._ring.num_envs
        # what `%` gives, in fewer operations: a GPU has no division of whole numbers
        later = torch.where(later < 0, later + self._slots, later)
        return torch.where(later >= self._slots, later - self._slots, later)

    def _n_step_returns(self, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns [B], discounts [B] and slots of the observations after n steps [B], as `TransitionReader` does."""
        returns = torch.zeros(len(slots), dtype=torch.float64, device=self._device)
        discounts, ends = torch.ones_like(returns), slots
        going = torch.ones(len(slots), dtype=torch.bool, device=self._device)
        for step in range(self._n_step):
            at = self._later(slots, step)
            going = going & ~self._ignored[at]
            ended = self._terminated[at]
            returns = returns + going * discounts * self._rewards[at]
            discounts = torch.where(going, discounts * self._gamma * ~ended, discounts)
            ends = torch.where(going, self._later(at, 1), ends)
            going = going & ~(ended | self._truncated[at])
        return returns, discounts, ends

    def learned(self, draw: DeviceDraw, errors: Tensor) -> None:
        """Make the errors [B] of a batch its priorities; of a transition drawn twice the last one counts.

        One that is no finite number changes nothing.
        """
        if not self._prioritised:
            return
        sizes = errors.double().abs()
        good = sizes.isfinite()
        values = (sizes.masked_fill(~good, 0.0) + self._config.priority_epsilon).pow(self._config.priority_exponent)
        self._highest.copy_(torch.maximum(self._highest, values.masked_fill(~good, 0.0).max()))
        same = draw.slots[:, None] == draw.slots
        beaten = (same & good).triu(diagonal=1).any(dim=1)  # a later one of the same slot is good
        self._priorities.set(draw.slots, values, keep=beaten | ~good)

    def state(self) -> dict[str, NDArray[Any]]:
        """All priorities [slots] and the highest one so far [], if prioritised; the generator's state."""
        saved: dict[str, NDArray[Any]] = {"chance": self.generator.get_state().numpy()}
        if self._prioritised:
            saved |= {"leaves": self._priorities.values.cpu().numpy(), "highest": self._highest[0].cpu().numpy()}
        return saved

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `state`, after the ring's rows are back; a state from a CPU has no random generator.

        Raises:
            KeyError: the state is of another kind of sampling.
            ValueError: the state is of a buffer of another size.
        """
        ring = self._ring
        theirs = (ring.actions, ring.rewards, ring.terminated, ring.truncated, ring.ignored, ring.ages)
        mine = (self._actions, self._rewards, self._terminated, self._truncated, self._ignored, self._ages)
        for tensor, array in zip(mine, theirs, strict=True):
            tensor.copy_(torch.from_numpy(array).flatten())
        self._head.copy_(torch.from_numpy(ring.head % ring.rows * ring.num_envs + self._envs))
        if "chance" in state:
            restore_generator_on(self.generator, torch.from_numpy(state["chance"]))
        if self._prioritised:
            leaves = state["leaves"]
            self._highest.fill_(float(state["highest"]))
        else:
            leaves = self._all_alike()
        if leaves.shape != (self._slots,):
            raise ValueError(f"priorities of {len(leaves):,} slots, not {self._slots:,}")
        self._priorities.rebuild(leaves)

    def _all_alike(self) -> NDArray[np.float64]:
        """1 for every slot [slots] that is a transition, 0 for the others."""
        ring = self._ring
        rows, envs = np.divmod(np.arange(ring.oldest * ring.num_envs, ring.head * ring.num_envs), ring.num_envs)
        values = np.zeros(self._slots)
        values[rows % ring.rows * ring.num_envs + envs] = ring.is_transition(rows, envs, self._n_step)
        return values
