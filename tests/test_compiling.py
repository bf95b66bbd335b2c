"""Functions that are compiled, or are not and say why."""

import warnings

import pytest
import torch

from pixelq.engines.compiling import can_compile, compiled

CPU = torch.device("cpu")


def test_a_cpu_compiles_nothing():
    assert not can_compile(CPU)


def test_what_is_not_to_be_compiled_is_the_function_itself():
    assert compiled(len, wanted=False) is len


@pytest.mark.slow
def test_a_compiled_function_changes_tensors_in_place():
    total = torch.zeros(3)

    def add(values):
        total.add_(values)
        return total.sum()

    quick = compiled(add)
    results = [float(quick(torch.ones(3))) for _ in range(3)]
    assert results == [3.0, 6.0, 9.0]
    assert total.tolist() == [3.0] * 3


@pytest.mark.slow
def test_what_cannot_be_compiled_is_called_as_it_is_and_told_once():
    generator, calls = torch.Generator().manual_seed(3), []

    def draw(size):
        calls.append(1)
        return torch.rand(size.shape, generator=generator)

    quick = compiled(draw)
    with pytest.warns(UserWarning, match=r"draw is slow, as it cannot be compiled: "):
        first = quick(torch.zeros(4))
    with warnings.catch_warnings(action="error"):
        second = quick(torch.zeros(4))
    again = torch.Generator().manual_seed(3)
    assert torch.equal(first, torch.rand(4, generator=again))
    assert torch.equal(second, torch.rand(4, generator=again))
    assert len(calls) == 2


@pytest.mark.slow
def test_an_error_of_the_functions_own_stays_what_it_is():
    def check(values):
        if values.shape[0] != 3:
            raise ValueError(f"{values.shape[0]} values, not 3")
        return values * 2

    quick = compiled(check)
    assert quick(torch.ones(3)).tolist() == [2.0] * 3
    with warnings.catch_warnings(action="ignore"), pytest.raises(ValueError, match="4 values, not 3"):
        quick(torch.ones(4))


@pytest.mark.gpu
def test_a_gpu_compiles():
    assert can_compile(torch.device("cuda"))
