"""The ring: rows of one slot a game, written once each, the oldest overwritten.

A row of time t holds, for every game, the newest plane of the observation at t, the action executed then, and what
followed: learning reward, terminated, truncated. The newest row, the head, holds its planes only. A game's final
observation takes the slot of the step with the ignored action (the reset); that slot is never a transition.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixelq.config import ATARI_SHAPE, ObsShape
from pixelq.native.replay import UnreadPlanes
from pixelq.replay.frames import NO_PLANE, FrameStore

__all__ = ["SCALAR_BYTES", "Ring", "Rows", "rows_needed"]

SCALAR_BYTES = 9  # a slot takes beside its plane
_AGE_LIMIT = 255  # only ages below the number of stacked pictures matter


class Rows(NamedTuple):
    """Consecutive rows as they are kept on disk, [K, N] each."""

    planes: NDArray[np.uint8]  # [K, N, 84, 84]
    actions: NDArray[np.uint8]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    ages: NDArray[np.uint8]


def rows_needed(capacity: int, num_envs: int, n_step: int, stack: int = ATARI_SHAPE.stack) -> int:
    """Rows of a ring that, when full, holds `capacity` n-step transitions of N games."""
    # beside the transitions: the head, n − 1 rows that wait for their n steps, and rows with stacks that the seam cuts
    return -(-capacity // num_envs) + stack - 1 + n_step


class Ring:
    """Rows of transitions by their global number, counted from 0 since the run began.

    Args:
        rows: rows held, the head included.
        num_envs: games N.
        frames: a store with rows · N slots.
        shape: of the observations.
    """

    def __init__(self, rows: int, num_envs: int, frames: FrameStore, shape: ObsShape = ATARI_SHAPE) -> None:
        self.rows = rows
        self.num_envs = num_envs
        self.head = 0  # global number of the row without an action yet
        self.first = 0  # global number of the oldest row ever appended or restored
        self.shape = shape
        self._frames = frames
        slots = (rows, num_envs)
        self.actions = np.zeros(slots, np.uint8)
        self.rewards = np.zeros(slots, np.float32)
        self.terminated = np.zeros(slots, np.bool_)
        self.truncated = np.zeros(slots, np.bool_)
        self.ignored = np.zeros(slots, np.bool_)
        self.ages = np.zeros(slots, np.uint8)

    @property
    def oldest(self) -> int:
        """Global number of the oldest row still held."""
        return max(self.first, self.head - self.rows + 1)

    def start(self, planes: NDArray[np.uint8]) -> None:
        """Write the planes [N, 84, 84] of the first observations into the head row."""
        self._write_head(planes, np.zeros(self.num_envs, np.uint8))

    def append(
        self,
        actions: NDArray[np.int64],
        rewards: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        ignored: NDArray[np.bool_],
        next_planes: NDArray[np.uint8],
    ) -> None:
        """Complete the head row and open the next.

        Args:
            actions: [N] executed at the head.
            rewards: [N] learning rewards that followed.
            terminated: [N] the episode ended there, for learning.
            truncated: [N] the game was cut off there.
            ignored: [N] the action was ignored and `next_planes` start a new game.
            next_planes: [N, 84, 84] newest planes of the observations that followed.
        """
        at = self.head % self.rows
        self.actions[at] = actions
        self.rewards[at] = rewards
        self.terminated[at] = terminated
        self.truncated[at] = truncated
        self.ignored[at] = ignored
        older = np.minimum(self.ages[at], _AGE_LIMIT - 1) + 1
        self.head += 1
        self._write_head(next_planes, np.where(ignored, 0, older).astype(np.uint8))

    def _write_head(self, planes: NDArray[np.uint8], ages: NDArray[np.uint8]) -> None:
        at = self.head % self.rows
        self.ages[at] = ages
        self._frames.write(at * self.num_envs, planes)

    def slots_of_stacks(self, rows: NDArray[np.int64], envs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots [K, 4] of the planes that make up the observations of rows and games [K]; none before a game."""
        back = np.arange(self.shape.stack - 1, -1, -1)
        slots = (rows[:, None] - back) % self.rows * self.num_envs + envs[:, None]
        slots[back > self.ages[rows % self.rows, envs][:, None]] = NO_PLANE  # older slots may be another game's
        return slots

    def stacks(self, slots: NDArray[np.int64]) -> Tensor:
        """Observations [K, 4, 84, 84] of planes in slots [K, 4], zeros where there is none."""
        return self._frames.read(slots).view(len(slots), *self.shape.obs)

    def unread_stacks(self, slots: NDArray[np.int64]) -> UnreadPlanes | None:
        """The same for kernels that read planes themselves; None if the store has none."""
        return self._frames.unread(slots)

    def is_transition(self, rows: NDArray[np.int64], envs: NDArray[np.int64], n_step: int) -> NDArray[np.bool_]:
        """Which of the slots [K] can be sampled: whole stack held, n steps known, action not ignored."""
        at = rows % self.rows
        needed = np.minimum(self.ages[at, envs], self.shape.stack - 1)
        return (rows - needed >= self.oldest) & (rows + n_step <= self.head) & ~self.ignored[at, envs]

    def read_rows(self, start: int, end: int) -> Rows:
        """Complete rows start … end − 1, all still held, as copies."""
        at = np.arange(start, end) % self.rows
        planes = self._frames.read(self._slots(at)).cpu().numpy()
        flags = (self.terminated[at], self.truncated[at], self.ignored[at])
        return Rows(planes, self.actions[at], self.rewards[at], *flags, self.ages[at])

    def write_rows(self, start: int, rows: Rows) -> None:
        """Put complete rows back; the first has the global number `start`. They must follow the rows put before."""
        if self.head == 0:
            self.first = self.head = start
        if start != self.head:
            raise ValueError(f"rows from {start} on do not follow row {self.head}")
        done = 0
        while done < len(rows.actions):  # a piece up to the array's end, then the rest
            at = (start + done) % self.rows
            part = slice(done, min(len(rows.actions), done + self.rows - at))
            to = slice(at, at + part.stop - part.start)
            self.actions[to], self.rewards[to] = rows.actions[part], rows.rewards[part]
            self.terminated[to], self.truncated[to] = rows.terminated[part], rows.truncated[part]
            self.ignored[to], self.ages[to] = rows.ignored[part], rows.ages[part]
            self._frames.write(at * self.num_envs, rows.planes[part].reshape(-1, *self.shape.picture))
            done = part.stop
        self.head = start + len(rows.actions)

    def head_row(self) -> dict[str, NDArray[np.uint8]]:
        """The head's planes [N, 84, 84] and ages [N], which no complete row holds yet."""
        at = np.array(self.head % self.rows)
        return {"planes": self._frames.read(self._slots(at)).cpu().numpy(), "ages": self.ages[at].copy()}

    def restore_head(self, row: dict[str, NDArray[np.uint8]]) -> None:
        """The inverse of `head_row`, after all complete rows are back."""
        self._write_head(row["planes"], row["ages"])

    def _slots(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots [..., N] of the rows at positions [...] of the ring."""
        return at[..., None] * self.num_envs + np.arange(self.num_envs)
