"""Notices that learning has run away, without ever waiting for the device, and keeps the figures that explain it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["DivergenceWatch", "all_finite"]


class DivergenceWatch:
    """Keeps the figures of the last two updates, up to the first update whose loss is no number.

    Everything stays on the device until `describe` is called, so that noting an update costs no wait.

    Args:
        device: where the updates happen.
    """

    def __init__(self, device: torch.device) -> None:
        self._names: tuple[str, ...] = ()  # of the ranges
        self._figures = torch.empty(2, 0, device=device)  # of the update before, and of the last one
        self._found = torch.zeros((), dtype=torch.bool, device=device)
        self._noted = torch.zeros(1, dtype=torch.int64, device=device)  # updates up to the one that was found
        self._since = torch.zeros(1, dtype=torch.int64, device=device)  # updates after the one that was found

    def expect(self, names: tuple[str, ...]) -> None:
        """Tell the names of the ranges before the first update is noted; they stay the same."""
        if self._names != names:
            self._names = names
            self._figures = torch.full((2, 2 + 2 * len(names)), torch.nan, device=self._found.device)

    @torch.no_grad()
    def note(self, loss: Tensor, ranges: Mapping[str, Tensor], norms: Tensor) -> None:
        """Take down the figures of an update.

        Args:
            loss: [] mean loss of the batch.
            ranges: tensors of any shape whose least and largest entry tell, by the names that `expect` was told.
            norms: [P] of the gradients of all weights, before any clipping.
        """
        figures = torch.stack([loss, norms.norm(), *(edge for tensor in ranges.values() for edge in tensor.aminmax())])
        self._figures.copy_(torch.where(self._found, self._figures, torch.stack([self._figures[1], figures])))
        self._noted.add_(~self._found)
        self._since.add_(self._found)
        self._found.logical_or_(~torch.isfinite(loss))

    @property
    def found(self) -> bool:
        """Whether the loss of an update was no number; waits for the device."""
        return bool(self._found)

    def describe(self) -> tuple[int, str]:
        """How many updates ago it was, 0 being the last one, and that update's figures in words."""
        noted, since = int(self._noted), int(self._since)  # the figures do not tell: all of them may be NaN
        if not noted:
            return since, "before any update"
        before, last = (_words(row, self._names) for row in self._figures.tolist())
        return since, f"its batch: {last}" + (f"; the update before: {before}" if noted > 1 else "")


def _words(figures: list[float], names: Sequence[str]) -> str:
    loss, norm, *edges = figures
    ranges = (f"{name} {low:.4g} to {high:.4g}" for name, low, high in zip(names, edges[::2], edges[1::2], strict=True))
    return ", ".join((f"loss {loss:.4g}", f"gradient norm {norm:.4g}", *ranges))


@torch.no_grad()
def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity; waits for the device once."""
    device = tensors[0].device  # optimisers keep some counts on the CPU
    largest = torch._foreach_norm([tensor for tensor in tensors if tensor.is_floating_point()], torch.inf)
    return bool(torch.stack([norm.to(device, torch.float32) for norm in largest]).isfinite().all())
