"""Apple's GPUs, as far as a machine without one can test: every place that treats them differently."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import pixelq.device
from pixelq import system
from pixelq.cli.main import main
from pixelq.config import TrainConfig
from pixelq.device import generator_on, has_fast_bfloat16, resolve_device, send, to_device
from pixelq.engines.choice import samples_on_device
from pixelq.engines.compiling import can_compile
from pixelq.engines.notes import gpu_notes
from pixelq.envs.interface import RESEED_STEPS
from pixelq.errors import PixelqError
from pixelq.networks.heads import CategoricalHead, LinearHead
from pixelq.optimisers import StepSize
from pixelq.training.parts import resolve

MPS = torch.device("mps")


@pytest.fixture
def apple(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)


def test_a_name_means_what_torch_says_is_there(apple, monkeypatch):
    assert resolve_device("mps") == MPS
    assert resolve_device("auto").type in ("cpu", "cuda")  # not chosen unasked: nobody has measured it
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(PixelqError, match="finds no Apple GPU here, this macOS has no GPU that it can use; use --dev"):
        resolve_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    with pytest.raises(PixelqError, match="finds no Apple GPU here, it is built without Apple's; use --device cpu"):
        resolve_device("mps")


def test_the_command_line_knows_the_name_and_says_that_there_is_none(capsys):
    if torch.backends.mps.is_available():
        pytest.skip("there is one")
    assert main(["eval", "breakout", "--device", "mps"]) == 2
    assert "--device mps: torch finds no Apple GPU here" in capsys.readouterr().err


def test_a_config_is_resolved_for_it(apple):
    config = resolve(TrainConfig(device="mps", game="breakout"))
    assert (config.device, config.precision, config.replay.store) == ("mps", "float32", "lz4")
    assert config.env.reseed_steps == RESEED_STEPS["mps"]
    assert not has_fast_bfloat16(MPS)
    assert not samples_on_device(config, MPS)
    assert not can_compile(MPS)
    assert "untested" in gpu_notes(config, compiles=False)[0]


def test_step_sizes_are_numbers_there():
    assert StepSize(0.5, MPS).value == 0.5


def test_copies_are_waited_for(monkeypatch):
    asked = []

    class Copied:
        device = MPS

        def to(self, device, non_blocking):
            asked.append((device.type, non_blocking))

        def copy_(self, source, non_blocking):
            asked.append((source.device.type, non_blocking))

    monkeypatch.setattr(pixelq.device, "_within_reach", lambda array, device: Copied())
    to_device(np.zeros(1), MPS)
    send(np.zeros(1), Copied())
    assert asked == [("mps", False), ("mps", False)]


def test_chance_comes_from_a_generator_there(monkeypatch):
    made = []

    class Generator:
        def __init__(self, device):
            made.append(device)

        def manual_seed(self, seed):
            made.append(seed)
            return self

    generator = torch.Generator().manual_seed(1)
    monkeypatch.setattr(torch, "Generator", Generator)
    assert isinstance(generator_on(MPS, generator), Generator)
    assert made[0] == MPS
    assert 0 <= made[1] < 2**62


def test_atoms_need_no_float64_there(monkeypatch):
    head = CategoricalHead(LinearHead(4, 2, 5), 5, -1.0, 1.0)
    wanted, places, linspace = head.atoms, [], torch.linspace
    monkeypatch.setattr(head.body, "parameters", lambda: iter([SimpleNamespace(device=MPS)]))
    monkeypatch.setattr(torch, "linspace", lambda *a, device, **k: places.append(str(device)) or linspace(*a, **k))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: (device, tensor))
    device, atoms = head.atoms
    assert (device, places) == (MPS, ["cpu"])
    assert torch.equal(atoms, wanted)


@pytest.mark.slow
def test_adam_is_fused_there():
    """By PyTorch's own account: tensors that are only said to be there."""
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.empty(4, 3, device="mps"))
        torch.optim.Adam([weight], 1e-3, fused=True)


@pytest.mark.parametrize(("platform", "asked"), [("darwin", "1"), ("linux", None)])
def test_the_cpu_computes_what_the_gpu_cannot(monkeypatch, platform, asked):
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    system.let_cpu_help_apples_gpu()
    assert system.os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None) == asked
