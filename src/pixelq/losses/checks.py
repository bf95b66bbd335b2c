"""Checks at the start of every loss: ranks, dtypes and sizes must agree, because broadcasting would hide a mistake."""

from torch import Tensor, int64

__all__ = ["check_tensors"]


def check_tensors(**arguments: tuple[Tensor, str]) -> None:
    """Check tensors against their forms.

    Args:
        arguments: each tensor by name with its form: the names of its axes, separated by blanks, e.g. `"B A"`; with
            `"int64 B"` it must be int64, else floating point. Axes of one name must have one size.

    Raises:
        ValueError: a tensor has another rank, or a size that does not agree with the tensors before it.
        TypeError: a tensor has another dtype.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, (tensor, form) in arguments.items():
        axes = form.removeprefix("int64 ").split()
        shape = tuple(tensor.shape)
        if len(shape) != len(axes):
            raise ValueError(f"{name} has shape {shape}: must have rank {len(axes)}, [{', '.join(axes)}]")
        if form.startswith("int64 ") and tensor.dtype != int64:
            raise TypeError(f"{name} is {tensor.dtype}: must be torch.int64")
        if not form.startswith("int64 ") and not tensor.is_floating_point():
            raise TypeError(f"{name} is {tensor.dtype}: must be floating point")
        for axis, size in zip(axes, shape, strict=True):
            known, where = sizes.setdefault(axis, (size, name))
            if size != known:
                raise ValueError(f"{name} has shape {shape}: {axis} must be {known}, as in {where}")
