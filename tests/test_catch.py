"""Every preset, cut down, learns to catch: settings and measure as in benchmarks/catch.py.

On another processor a run with the same seed rounds differently, so it is another run. Hence an agent that was stopped
too early continues, within a budget of steps with a margin; `benchmarks/catch.py --seeds 1 2 3 4 5` shows which.
"""

import pytest

from catch import EACH, solve
from pixelq.presets import PRESETS


def test_every_preset_has_its_settings():
    assert list(EACH) == list(PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_solves_catch(name):
    result = solve(name, seed=1)
    assert result.solved, result
