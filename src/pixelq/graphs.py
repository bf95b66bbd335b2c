"""CUDA graphs: work on a GPU recorded once and replayed, so that a call costs one launch instead of hundreds."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

from pixelq.errors import PixelqError

__all__ = ["Graph"]

Result = TypeVar("Result")

_WARM_UP_CALLS = 3  # in which libraries set up what they set up at first use


class Graph(Generic[Result]):
    """A function of tensors that stay where they are: on a GPU recorded and replayed, elsewhere called every time.

    Every call does the work exactly once: the first ones call the function, the next records it and replays that, all
    later ones replay. So the function must read nothing of the host's that changes, wait for nothing on the device, and
    its result lies in the same memory every time, to be read before the next call.

    Args:
        function: the work.
        device: where its tensors live.
        generators: the device's generators that it draws from; their numbers go on from replay to replay.
        record: False calls the function every time on a GPU, too.

    Source: "CUDA Graphs" in PyTorch's notes on CUDA semantics, whole-network capture.
    """

    def __init__(
        self,
        function: Callable[[], Result],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        record: bool = True,
    ) -> None:
        self._function = function
        self._generators = [generator for generator in generators if generator.device.type == "cuda"]
        self._warm_up_calls_left = _WARM_UP_CALLS
        # of its own: the backward pass remembers the stream of its first run, which must be the one that is recorded
        self._stream: torch.cuda.Stream | None = None
        if record and device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
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
