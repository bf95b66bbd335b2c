"""Every preset, cut down, learns to catch: settings and measure are those of benchmarks/catch.py."""

import pytest

from catch import EACH, SOLVED_PERCENT, solve
from pixelq.presets import PRESETS


def test_every_preset_has_its_settings():
    assert list(EACH) == list(PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_solves_catch(name):
    result = solve(name, seed=1)
    assert result.caught_percent >= SOLVED_PERCENT, result
