"""Notices that learning has run away, without ever waiting for the device, and keeps the figures that explain it."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["DeviceWatch", "DivergenceWatch", "HostWatch", "all_finite", "watch_on"]


class DivergenceWatch(Protocol):
    """Keeps the figures of the last two updates, up to the first update with a loss of NaN or infinity."""

    def expect(self, names: tuple[str, ...]) -> None:
        """Tell the names of the ranges before the first update is noted; they stay the same."""

    def note(self, loss: Tensor, ranges: Mapping[str, Tensor], norms: Tensor) -> None:
        """Take down the figures of an update.

        Args:
            loss: [] mean loss of the batch.
            ranges: tensors of any shape, by the names given to `expect`; their smallest and largest entries are kept.
            norms: [P] of the gradients of all weights, before any clipping.
        """

    @property
    def found(self) -> bool:
        """Whether an update's loss was NaN or infinite; waits for the device."""

    def describe(self) -> tuple[int, str]:
        """How many updates ago it was, 0 being the last one, and that update's figures in words."""


class HostWatch:
    """On a CPU: keeps the tensors and computes figures on request; the tensors must not change."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        # the update before the last, and the last: the arguments, and the update's part of them
        self._kept: list[tuple[Tensor, Mapping[str, Tensor], Tensor, int]] = []
        self.found = False
        self._since = 0

    def expect(self, names: tuple[str, ...]) -> None:
        """Tell the names of the ranges."""
        self._names = names

    def note(self, loss: Tensor, ranges: Mapping[str, Tensor], norms: Tensor) -> None:
        """Take down the figures of an update."""
        self.note_all(loss[None], ranges, norms[None])

    def note_all(self, losses: Tensor, ranges: Mapping[str, Tensor], norms: Tensor) -> list[float]:
        """Take down the figures of U updates in a row.

        Args:
            losses: [U] mean losses of the batches.
            ranges: as `note`, tensors of as many equal parts one after the other.
            norms: [U, P].

        Returns:
            The losses.
        """
        values: list[float] = losses.tolist()
        for part, loss in enumerate(values):
            if self.found:
                self._since += 1
            else:
                self._kept = [*self._kept[-1:], (losses, ranges, norms, part)]
                self.found = not math.isfinite(loss)
        return values

    def describe(self) -> tuple[int, str]:
        """How many updates ago it was, and its figures in words."""
        updates = [
            _figures(
                losses[part],
                {name: tensor.chunk(len(losses))[part] for name, tensor in ranges.items()},
                norms[part],
            )
            for losses, ranges, norms, part in self._kept
        ]
        return _described(self._since, [figures.tolist() for figures in updates], self._names)


class DeviceWatch:
    """On a GPU: everything stays there until `describe` is called, so that noting an update costs no wait.

    Args:
        device: where the updates happen.
    """

    def __init__(self, device: torch.device) -> None:
        self._names: tuple[str, ...] = ()  # of the ranges
        self._rows = torch.empty(2, 0, device=device)  # figures of the update before, and of the last one
        self._found = torch.zeros((), dtype=torch.bool, device=device)
        self._noted = torch.zeros(1, dtype=torch.int64, device=device)  # updates up to the one that was found
        self._since = torch.zeros(1, dtype=torch.int64, device=device)  # updates after the one that was found

    def expect(self, names: tuple[str, ...]) -> None:
        """Tell the names of the ranges before the first update is noted."""
        if self._names != names:
            self._names = names
            self._rows = torch.full((2, 2 + 2 * len(names)), torch.nan, device=self._found.device)

    @torch.no_grad()
    def note(self, loss: Tensor, ranges: Mapping[str, Tensor], norms: Tensor) -> None:
        """Take down the figures of an update."""
        rows = torch.stack([self._rows[1], _figures(loss, ranges, norms)])
        self._rows.copy_(torch.where(self._found, self._rows, rows))
        self._noted.add_(~self._found)
        self._since.add_(self._found)
        self._found.logical_or_(~torch.isfinite(loss))

    @property
    def found(self) -> bool:
        """Whether an update's loss was NaN or infinite; waits for the device."""
        return bool(self._found)

    def describe(self) -> tuple[int, str]:
        """How many updates ago it was, and its figures in words."""
        noted = min(2, int(self._noted))  # not from the figures: all of them may be NaN
        return _described(int(self._since), self._rows[2 - noted :].tolist(), self._names)


def watch_on(device: torch.device) -> DivergenceWatch:
    """A watch for updates on a device."""
    return HostWatch() if device.type == "cpu" else DeviceWatch(device)


def _figures(loss: Tensor, ranges: Mapping[str, Tensor], norms: Tensor) -> Tensor:
    """[2 + 2R] loss, joint norm of the gradients, least and largest of each range."""
    return torch.stack([loss, norms.norm(), *(edge for tensor in ranges.values() for edge in tensor.aminmax())])


def _described(since: int, updates: Sequence[Sequence[float]], names: Sequence[str]) -> tuple[int, str]:
    """How many updates ago it was, and its figures, from the figures of at most the last two updates."""
    if not updates:
        return since, "before any update"
    *before, last = (_words(figures, names) for figures in updates)
    return since, f"its batch: {last}" + "".join(f"; the update before: {words}" for words in before)


def _words(figures: Sequence[float], names: Sequence[str]) -> str:
    loss, norm, *edges = figures
    ranges = (f"{name} {low:.4g} to {high:.4g}" for name, low, high in zip(names, edges[::2], edges[1::2], strict=True))
    return ", ".join((f"loss {loss:.4g}", f"gradient norm {norm:.4g}", *ranges))


@torch.no_grad()
def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity; waits for the device once."""
    device = tensors[0].device  # optimisers keep some counts on the CPU
    largest = torch._foreach_norm([tensor for tensor in tensors if tensor.is_floating_point()], torch.inf)
    return bool(torch.stack([norm.to(device, torch.float32) for norm in largest]).isfinite().all())
