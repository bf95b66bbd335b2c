"""The family's short training: one rule for all presets."""

import pytest

import result_data
import result_family
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


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Three runs of two presets, as results of their own."""
    (tmp_path / "curves").mkdir()
    runs = [("pqn-breakout-s2", 300_000, 9.0), ("pqn-breakout-s1", 300_000, 5.25), ("iqn-pong-s1", 100_000, -19.5)]
    rows = [f"family,{run},{run.split('-')[0]},{run.split('-')[1]},{run[-1]},abc1234,\"a machine, 8 GiB\",,"
            for run, _, _ in runs]  # fmt: skip
    (tmp_path / "runs.csv").write_text("\n".join(["study,run,preset,game,seed,commit,machine,command,beside", *rows]))
    monkeypatch.setattr(result_data, "FOLDER", tmp_path)
    result_data.write_curves(
        "family", {run: [{"step": steps, "seconds": 600.0, "train/return_per_game": end}] for run, steps, end in runs}
    )
    for cached in (result_data.read, result_data.curves):
        cached.cache_clear()
    yield tmp_path
    for cached in (result_data.read, result_data.curves):
        cached.cache_clear()


def test_the_table_has_a_row_a_preset_with_seeds_in_order_and_says_where_a_run_was_stopped(recorded):
    _, _, *lines = result_family.family().splitlines()
    rows = {name: cells for name, *cells in (line.strip("| ").split(" | ") for line in lines)}
    assert list(rows) == [f"`{name}`" for name in PRESETS]
    assert rows["`pqn`"][:2] == ["5.2 · 9.0", "10 · 10"]
    assert rows["`iqn`"][2] == "−19.5 at 100,000"
    assert rows["`c51`"] == ["–"] * 5


def test_a_presets_own_page_has_its_short_runs(recorded):
    rows = result_family.family_rows("pqn")
    assert [row[1:5] for row in rows] == [
        ["breakout, seed 1", "300,000", "training, the last 100", "**5.2**"],
        ["breakout, seed 2", "300,000", "training, the last 100", "**9.0**"],
    ]
    assert result_family.family_rows("c51") == []


@pytest.mark.slow
def test_the_picture_is_drawn_with_and_without_runs(recorded, tmp_path):
    import result_pictures

    result_pictures.family(tmp_path / "with.png")
    (recorded / "runs.csv").write_text("study,run,preset,game,seed,commit,machine,command,beside\n")
    result_data.read.cache_clear()
    result_pictures.family(tmp_path / "without.png")
    assert (tmp_path / "with.png").stat().st_size > (tmp_path / "without.png").stat().st_size > 0
