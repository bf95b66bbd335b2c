"""What must not happen in work that a GPU queues or records."""

import warnings
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero")


class NoWaiting(TorchDispatchMode):
    """Refuses the operations for which a GPU's queue would have to run dry."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in WAITING, name
        return func(*args, **(kwargs or {}))


class NothingOfTheHosts(TorchDispatchMode):
    """Refuses operations in which a tensor of the CPU takes part: a recorded graph would find its memory given away."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        assert all(tensor.device.type != "cpu" for tensor in tensors), func
        return result


@contextmanager
def no_waiting_for_the_gpu():
    """On a GPU itself: whatever would wait for it raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype", UserWarning)
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
