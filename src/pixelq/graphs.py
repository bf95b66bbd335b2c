"""CUDA graphs: work on a GPU recorded once and replayed, so that a call costs one launch instead of hundreds."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelq.device import send, to_device
from pixelq.errors import PixelqError

__all__ = ["Graph", "GraphsByShape", "own_stream"]

Result = TypeVar("Result")

_WARM_UP_CALLS = 3  # in which libraries do their first-use set-up


class Graph(Generic[Result]):
    """A function of tensors at fixed addresses: on a GPU recorded and replayed, elsewhere called every time.

    Every call does the work exactly once: the first ones call the function, the next records it and replays that, all
    later ones replay. So the function must read no changing host data and never wait for the device.
    Its result is in the same memory every time; read it before the next call.

    Args:
        function: the work.
        device: where its tensors live.
        generators: the device's random generators that it draws from; they continue from replay to replay.
        stream: where it is recorded; None: its own stream. A backward pass remembers the stream of its first run, so
            functions that do the same one must share theirs.

    Source: "CUDA Graphs" in PyTorch's notes on CUDA semantics, whole-network capture.
    """

    def __init__(
        self,
        function: Callable[[], Result],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        self._function = function
        self._generators = [generator for generator in generators if generator.device.type == "cuda"]
        self._warm_up_calls_left = _WARM_UP_CALLS
        self._stream = stream or own_stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Result

    def __call__(self) -> Result:
        """Do the work; on a GPU its result may not be there yet when this returns.

        Raises:
            PixelqError: the GPU cannot record it.
        """
        if self._stream is None:
            return self._function()
        if self._warm_up_calls_left:
            self._warm_up_calls_left -= 1
            return self._warm_up(self._stream)
        if self._graph is None:
            self._graph = self._record(self._stream)
        self._graph.replay()
        return self._result

    def _warm_up(self, stream: torch.cuda.Stream) -> Result:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self._function()
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _record(self, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            # other threads may use the GPU meanwhile
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._result = self._function()
        except RuntimeError as error:
            line = str(error).splitlines()[0]
            raise PixelqError(f"the GPU cannot record this work as a graph ({line}): use --no-cuda-graphs") from error
        return graph


def own_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream for recording, on a GPU: the usual one cannot be recorded."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


class GraphsByShape(Generic[Result]):
    """A function of arrays: on a GPU a `Graph` for each set of shapes that it is called with, elsewhere a plain call.

    Every graph has its own memory, to which the arrays are copied first. So use few sets of shapes.

    Args:
        function: takes tensors on the device; the rules of a `Graph`'s function hold here.
        device: where the work is done.
        generators: as in `Graph`.
        record: False: call the function every time, on a GPU too.
    """

    def __init__(
        self,
        function: Callable[..., Result],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        record: bool = True,
    ) -> None:
        self._function = function
        self._device = device
        self._generators = generators
        self._records = record and device.type == "cuda"
        self._recorded: dict[tuple[tuple[int, ...], ...], tuple[list[Tensor], Graph[Result]]] = {}

    def __call__(self, *arrays: NDArray[np.generic] | Tensor) -> Result:
        """Do the work; on a GPU its result may not be there yet when this returns. Read it before the next call.

        Args:
            arrays: the function's arguments, on the host or on the device, always of the same types.

        Raises:
            PixelqError: the GPU cannot record it.
        """
        if not self._records:
            return self._function(*(to_device(array, self._device) for array in arrays))
        shapes = tuple(tuple(array.shape) for array in arrays)
        if shapes not in self._recorded:
            self._recorded[shapes] = self._to_record(arrays)
        memory, graph = self._recorded[shapes]
        for array, mine in zip(arrays, memory, strict=True):
            send(array, mine)
        return graph()

    def _to_record(self, arrays: Sequence[NDArray[np.generic] | Tensor]) -> tuple[list[Tensor], Graph[Result]]:
        memory = [torch.empty_like(torch.as_tensor(array), device=self._device) for array in arrays]
        return memory, Graph(lambda: self._function(*memory), self._device, self._generators)
