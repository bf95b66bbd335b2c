"""Where networks live, by name."""

import torch

from pixelq.errors import PixelqError

__all__ = ["resolve_device"]


def resolve_device(name: str) -> torch.device:
    """The device that a name means.

    Args:
        name: `cpu`, `cuda`, or `auto`, which takes a GPU if there is one.

    Raises:
        PixelqError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise PixelqError(f'--device {name}: must be "auto", "cpu" or "cuda"')
    if name == "cuda" and not torch.cuda.is_available():
        raise PixelqError("--device cuda: torch finds no CUDA GPU here; use --device cpu or auto")
    return torch.device(name)
