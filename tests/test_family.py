"""The family's short training: one rule for all presets."""

import pytest

from family import STEPS, shortened
from pixelq import preset
from pixelq.config import to_json
from pixelq.presets import PRESETS
from pixelq.run.reading import flat
from pixelq.training.parts import resolve

MAY_DIFFER = {
    *("total_steps", "stop_on", "target_period_steps", "replay.learn_start", "notebook_log"),
    *("exploration.decay_steps", "exploration.decay_from_step", "exploration.random_steps"),
    *("log_every_steps", "video_every_episodes"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_rule_shortens_schedules_and_nothing_else(name):
    resolve(shortened(preset(name)))  # it is a valid recipe
    before, after = (flat(to_json(config)) for config in (preset(name), shortened(preset(name))))
    assert {key for key in after if after[key] != before[key]} <= MAY_DIFFER
    schedule = {key: after[key] for key in after if key.startswith("exploration.")}
    assert after["total_steps"] == STEPS == 300_000
    assert schedule["exploration.decay_steps"] <= 100_000
    assert schedule["exploration.decay_from_step"] <= 10_000
    assert schedule["exploration.random_steps"] <= 10_000
    assert after["replay.learn_start"] <= 10_000 or name == "pqn"
    assert after["target_period_steps"] <= 8_000 or name == "pqn"


def test_fast_keeps_its_schedule_but_for_its_length():
    before, after = (flat(to_json(config)) for config in (preset("fast"), shortened(preset("fast"))))
    changed = {key for key in after if after[key] != before[key]}
    assert changed <= {"total_steps", "log_every_steps", "video_every_episodes"}
