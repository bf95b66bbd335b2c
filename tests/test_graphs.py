"""Work that is recorded and replayed: its order of events, on a GPU that is made of lists."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from pixelq.device import generator_on, restore_generator_on, send, to_device
from pixelq.errors import PixelqError
from pixelq.graphs import Graph, GraphsByShape

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class FakeGpu:
    """Records the calls of `torch.cuda`; a recorded function is replayed by calling it."""

    def __init__(self, monkeypatch):
        self.events, self.recording, self.registered = [], None, []
        for name in ("Stream", "CUDAGraph", "current_stream", "stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def Stream(self, device):
        assert device == GPU
        return FakeStream(self, "side")

    def current_stream(self):
        return FakeStream(self, "main")

    @contextmanager
    def stream(self, stream):
        self.events.append(f"on {stream.name}")
        yield
        self.events.append("back")

    def CUDAGraph(self):
        return self

    def register_generator_state(self, generator):
        self.registered.append(generator)

    @contextmanager
    def graph(self, graph, stream, capture_error_mode):
        assert (graph, stream.name, capture_error_mode) == (self, "side", "thread_local")
        self.events.append("record")
        yield
        self.events.append("recorded")

    def replay(self):
        self.events.append("replay")


class FakeStream:
    def __init__(self, gpu, name):
        self.gpu, self.name = gpu, name

    def wait_stream(self, other):
        self.gpu.events.append(f"{self.name} waits for {other.name}")


def test_on_a_cpu_every_call_is_a_call():
    calls = []
    graph = Graph(lambda: calls.append(1) or len(calls), CPU)
    assert [graph() for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_on_a_gpu_it_warms_up_then_records_once_then_replays(monkeypatch):
    gpu = FakeGpu(monkeypatch)
    graph = Graph(lambda: gpu.events.append("work") or "result", GPU)
    results = [graph() for _ in range(6)]
    assert results == ["result"] * 6
    warm_up = ["side waits for main", "on side", "work", "back", "main waits for side"]
    # recording does no work: replaying right after it does
    assert gpu.events == [*warm_up * 3, "record", "work", "recorded", "replay", "replay", "replay"]


def test_the_gpus_sources_of_chance_go_on_from_replay_to_replay(monkeypatch):
    class Source:
        device = GPU

    gpu, mine = FakeGpu(monkeypatch), Source()
    graph = Graph(lambda: None, GPU, [mine, torch.Generator()])
    for _ in range(5):
        graph()
    assert gpu.registered == [mine]


def test_what_cannot_be_recorded_is_told_in_one_line(monkeypatch):
    FakeGpu(monkeypatch)
    calls = []

    def waits():
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    graph = Graph(waits, GPU)
    for _ in range(3):
        graph()
    with pytest.raises(PixelqError, match=r"^the GPU cannot record .*is capturing\): use --no-cuda-graphs$"):
        graph()


# one graph for each set of shapes


def test_graphs_of_every_shape_have_memory_of_their_own():
    seen = []
    work = GraphsByShape(lambda a, b: seen.append((a.data_ptr(), b.data_ptr())) or a.sum() + b, CPU)
    work._records = True  # as on a GPU
    for size in (2, 3, 2, 3, 3):
        result = work(np.full(size, 2, np.float32), torch.tensor(1.0))
        assert result == 2 * size + 1
    assert seen[0] == seen[2] != seen[1] == seen[3] == seen[4]


@pytest.mark.parametrize(("device", "record"), [(CPU, True), (CPU, False), (torch.device("meta"), True)])
def test_what_is_not_recorded_is_called_with_the_arrays_themselves(device, record):
    array = torch.zeros(3, device=device)
    work = GraphsByShape(lambda given: given, device, record=record)
    assert work(array) is array


def test_on_a_gpu_it_can_be_told_not_to_record():
    assert GraphsByShape(len, GPU)._records
    assert not GraphsByShape(len, GPU, record=False)._records


# how arrays and random numbers get to a device


def test_on_a_cpu_an_array_is_shared_not_copied():
    array = np.arange(6, dtype=np.float32)
    tensor = to_device(array, CPU)
    array[0] = 9
    assert tensor.tolist() == [9, 1, 2, 3, 4, 5]
    assert to_device(tensor, CPU) is tensor


def test_an_array_is_sent_to_memory_of_its_shape():
    memory = torch.zeros(2, 3, dtype=torch.uint8)
    send(np.arange(6, dtype=np.uint8).reshape(2, 3), memory)
    assert memory.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_cpu_has_one_source_of_chance():
    generator = torch.Generator().manual_seed(3)
    assert generator_on(CPU, generator) is generator


def test_a_source_of_chance_goes_on_from_its_own_state_and_begins_anew_from_a_strange_one():
    source, twin = torch.Generator().manual_seed(1), torch.Generator()
    restore_generator_on(twin, source.get_state())
    assert torch.equal(torch.rand(5, generator=twin), torch.rand(5, generator=source))
    firsts = []
    for last in (1, 1, 2):
        strange = torch.zeros(16, dtype=torch.uint8)  # a GPU's has 16 bytes
        strange[-1] = last
        restore_generator_on(twin, strange)
        firsts.append(torch.rand(1, generator=twin).item())
    assert firsts[0] == firsts[1] != firsts[2]


@pytest.mark.gpu
def test_replays_draw_new_numbers_and_do_all_the_work():
    generator = torch.Generator("cuda").manual_seed(0)
    total = torch.zeros(4, device="cuda")

    def work():
        numbers = torch.rand(4, device="cuda", generator=generator)
        total.add_(numbers)
        return numbers

    graph = Graph(work, GPU, [generator])
    drawn = [graph().clone() for _ in range(8)]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 8
    torch.testing.assert_close(total, torch.stack(drawn).sum(dim=0))
