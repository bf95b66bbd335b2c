"""Saliency maps: how much each pixel of an observation counts for the action values."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

__all__ = ["QValues", "gradient_saliency", "occlusion_saliency"]

QValues = Callable[[Tensor], Tensor]
"""[B, 4, 84, 84] pixels in 0…255, or other planes, to [B, A] action values."""

_STRIDE = 5  # pixels between the centres of two patches, as in the paper: 17 x 17 of them on Atari
_PATCH_VARIANCE = 25.0  # of the Gaussian patch, pixels²
_BLUR = 3.0  # standard deviation of the blur, pixels
_BATCH = 64  # stacks in one forward: more do not fit the cache of a CPU


def gradient_saliency(q_values: QValues, obs: NDArray[np.uint8], device: torch.device) -> NDArray[np.float32]:
    """How steeply the highest action value changes with each pixel.

    Args:
        q_values: a network's; differentiable, and heeds pixels that are float32 as well as uint8.
        obs: [4, 84, 84] or [planes, H, W], newest plane last.
        device: where the network lives.

    Returns:
        [H, W] the largest |∂ max Q / ∂ pixel| of all planes, pixels in 0…1.

    Source: Simonyan et al. 2014, «Deep inside convolutional networks», section 3.1.
    """
    pixels = torch.from_numpy(obs).to(device, torch.float32).div_(255).requires_grad_()
    with torch.enable_grad():
        value = q_values((pixels * 255).unsqueeze(0)).max()
        (slope,) = torch.autograd.grad(value, pixels)
    return np.asarray(slope.abs().amax(dim=0).float().cpu().numpy())


@torch.inference_mode()
def occlusion_saliency(
    q_values: QValues, obs: NDArray[np.uint8], device: torch.device, channels: int = 1
) -> NDArray[np.float32]:
    """How much the action values change when a patch of the newest picture is blurred.

    Args:
        q_values: a network's.
        obs: [4, 84, 84] or [planes, H, W], newest plane last.
        device: where the network lives.
        channels: planes of a picture.

    Returns:
        [H, W] ½‖Q(obs) − Q(obs blurred around the pixel)‖², computed at every fifth pixel, linear in between.

    Source: Greydanus et al. 2018, «Visualizing and understanding Atari agents», equations 1 and 2, with action
    values in place of logits.
    """
    rows, columns = obs.shape[1:]
    patches = _patches(rows, columns)
    stacks = np.repeat(obs[None], len(patches) + 1, axis=0)  # the last one stays as it is
    for plane in range(len(obs) - channels, len(obs)):
        stacks[:-1, plane] = _occluded(obs[plane], patches)
    parts = torch.split(torch.from_numpy(stacks), _BATCH)
    values = torch.cat([q_values(part.to(device)).float() for part in parts])
    scores = (values[:-1] - values[-1]).square().sum(dim=1).mul(0.5).cpu().numpy()  # equation 2
    down, across = _spread(rows), _spread(columns)
    return np.asarray(down @ scores.reshape(down.shape[1], across.shape[1]) @ across.T)


def _occluded(plane: NDArray[np.uint8], patches: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The plane [H, W] with one patch blurred away in each of [P, H, W]; equation 1."""
    pixels = plane.astype(np.float32)
    blurred = gaussian_filter(pixels, _BLUR)
    return np.asarray((pixels + patches * (blurred - pixels)).round().astype(np.uint8))


@cache
def _patches(rows: int, columns: int) -> NDArray[np.float32]:
    """Gaussians [P, H, W], 1 at their centres on a grid, row by row."""
    down, across = _line(rows), _line(columns)
    return (down[:, None, :, None] * across[None, :, None, :]).reshape(-1, rows, columns)


def _line(side: int) -> NDArray[np.float32]:
    """Gaussians [17, 84] along a side of 84 pixels."""
    distance = np.arange(0, side, _STRIDE)[:, None] - np.arange(side)
    return np.exp(-(distance**2) / (2 * _PATCH_VARIANCE)).astype(np.float32)


@cache
def _spread(side: int) -> NDArray[np.float32]:
    """[84, 17], of a side of 84 pixels, that takes values at the grid's rows to values at every row, linearly."""
    centres = np.arange(0, side, _STRIDE)
    columns = [np.interp(np.arange(side), centres, unit) for unit in np.eye(len(centres))]
    return np.stack(columns, axis=1).astype(np.float32)
