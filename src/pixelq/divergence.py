"""Notices that learning has run away, without ever waiting for the device, and keeps the figures that explain it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pixelq.types import Batch

__all__ = ["DivergenceWatch", "all_finite"]


class DivergenceWatch:
    """Keeps the figures of the last two updates, up to the first update whose loss is no number.

    Everything stays on the device until `describe` is called, so that noting an update costs no wait.

    Args:
        device: where the updates happen.
    """

    def __init__(self, device: torch.device) -> None:
        self._figures = torch.full((2, 8), torch.nan, device=device)  # of the update before, and of the last one
        self._found = torch.zeros((), dtype=torch.bool, device=device)
        self._since = torch.zeros((), dtype=torch.int64, device=device)  # updates after the one that was found

    @torch.no_grad()
    def note(self, loss: Tensor, q_tm1: Tensor, batch: Batch, gradients: Sequence[Tensor]) -> None:
        """Take down the figures of an update.

        Args:
            loss: [] mean loss of the batch.
            q_tm1: [B, A] the online network's values.
            batch: what was learned from.
            gradients: of every weight, before any clipping.
        """
        norm = torch.stack(torch._foreach_norm(list(gradients))).norm()
        ranges = (*q_tm1.aminmax(), *batch.r_t.aminmax(), *batch.discount_t.aminmax())
        figures = torch.stack([loss, norm, *ranges])
        self._figures.copy_(torch.where(self._found, self._figures, torch.stack([self._figures[1], figures])))
        self._since.add_(self._found)
        self._found.logical_or_(~torch.isfinite(loss))

    @property
    def found(self) -> bool:
        """Whether the loss of an update was no number; waits for the device."""
        return bool(self._found)

    def describe(self) -> tuple[int, str]:
        """How many updates ago it was, 0 being the last one, and that update's figures in words."""
        before, last = (_words(row) for row in self._figures.tolist())
        text = f"its batch: {last}" if last else "before any update"
        return int(self._since), text + (f"; the update before: {before}" if before else "")


def _words(figures: list[float]) -> str:
    """Nothing for figures that were never noted."""
    if all(map(math.isnan, figures)):
        return ""
    loss, norm, q_low, q_high, r_low, r_high, d_low, d_high = figures
    return (
        f"loss {loss:.4g}, gradient norm {norm:.4g}, Q {q_low:.4g} to {q_high:.4g}, "
        f"rewards {r_low:.4g} to {r_high:.4g}, discounts {d_low:.4g} to {d_high:.4g}"
    )


@torch.no_grad()
def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity; waits for the device once."""
    device = tensors[0].device  # optimisers keep some counts on the CPU
    largest = torch._foreach_norm([tensor for tensor in tensors if tensor.is_floating_point()], torch.inf)
    return bool(torch.stack([norm.to(device, torch.float32) for norm in largest]).isfinite().all())
