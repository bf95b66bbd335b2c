"""The learner's record of one actor: batches requested, received and lost. Imports no Ray.

An actor has lives: after any loss its life ends and it begins anew, with new games. Within a life
batches are numbered from 0, and rows are taken in order without a gap. So games never continue across
a lost batch.
"""

from collections import deque
from dataclasses import dataclass, fields
from typing import NamedTuple

from pixelq.config import ObsShape
from pixelq.distributed.batches import BatchError, Row, RowReader

__all__ = ["Accounts", "Lane", "LostBatches"]


@dataclass
class Accounts:
    """Batches of one actor, or of several."""

    asked: int = 0
    received: int = 0
    """In order and whole: the learner uses their rows."""
    lost: int = 0
    """Requested in a life that ended before they came in order."""
    twice: int = 0
    """Dropped: duplicates, or never requested."""
    late: int = 0
    """Dropped: from a life that had ended; already reported as lost."""
    lives: int = 0
    """How often an actor began."""

    def __add__(self, other: "Accounts") -> "Accounts":
        """The sums."""
        return Accounts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


class LostBatches(NamedTuple):
    """What is lost with a life."""

    actor: int
    first: int
    """Number of the first lost batch."""
    batches: int
    """Number of requested batches from there on."""


class Lane:
    """The rows of one actor, in their order.

    Args:
        actor: its number.
        games: E, games of the actor.
        num_actions: actions that there are.
        shape: of the observations.
        most: most batches requested and not yet used: the actor then waits.
    """

    def __init__(self, actor: int, games: int, num_actions: int, shape: ObsShape, most: int) -> None:
        self.actor = actor
        self.life = -1
        self.accounts = Accounts()
        self.fruitless = 0
        """Lives, one after the other, that ended without a batch."""
        self._read = (games, num_actions, shape)
        self._most = most
        self._asked = self._expected = 0  # next numbers, in this life
        self._early: dict[int, bytes] = {}  # arrived before an earlier batch
        self._readers: deque[RowReader] = deque()

    @property
    def present(self) -> bool:
        """Whether rows of this life have come, so that more are waited for."""
        return self._expected > 0

    @property
    def has_row(self) -> bool:
        """Whether a row is there."""
        return bool(self._readers)

    @property
    def batches(self) -> int:
        """Batches that are there and not used up."""
        return len(self._readers)

    def begin(self) -> int:
        """A new life; returns its number."""
        self.life += 1
        self.accounts.lives += 1
        self._asked = self._expected = 0
        return self.life

    def wanted(self) -> range:
        """Numbers of batches to request now; they count as requested."""
        first = self._asked
        self._asked = max(first, self._expected + self._most - len(self._readers))
        self.accounts.asked += self._asked - first
        return range(first, self._asked)

    def arrived(self, life: int, number: int, data: bytes) -> None:
        """Take a batch in.

        Args:
            life: of the actor that sent it.
            number: of the batch.
            data: its bytes.

        Raises:
            BatchError: it is damaged; this life cannot continue.
        """
        if life != self.life:
            self.accounts.late += 1
            return
        if number < self._expected or number in self._early or number >= self._asked:
            self.accounts.twice += 1
            return
        self._early[number] = data
        while self._expected in self._early:
            reader = RowReader(self._early.pop(self._expected), *self._read)
            if self._expected == 0 and not reader.begins_games:
                raise BatchError("the first batch of an actor starts no games")
            self._readers.append(reader)
            self._expected += 1
            self.accounts.received += 1
            self.fruitless = 0

    def end(self) -> LostBatches:
        """End this life: batches that were due and have not arrived in order are lost."""
        lost = LostBatches(self.actor, self._expected, self._asked - self._expected)
        self.accounts.lost += lost.batches
        self.fruitless += self._expected == 0
        self._early.clear()
        self._asked = self._expected = 0
        return lost

    def pop(self) -> Row:
        """The next row."""
        reader = self._readers[0]
        row = reader.read()
        if not reader.left:
            self._readers.popleft()
        return row

    def check_valid(self) -> None:
        """Raise AssertionError if the books do not balance."""
        accounts = self.accounts
        open_ones = self._asked - self._expected
        assert accounts.asked == accounts.received + accounts.lost + open_ones, (accounts, open_ones)
        assert 0 <= open_ones <= self._most
        assert len(self._early) <= open_ones
        assert len(self._readers) <= accounts.received
        assert all(reader.left for reader in self._readers)
