"""Metrics are followed while they are written, cut, replaced and removed."""

import json
import os
import random

import pytest

from pixelq.viewer.tail import MetricsTail
from rundirs import record


@pytest.fixture
def file(tmp_path):
    return tmp_path / "metrics.jsonl"


def steps(tail):
    return list(tail.columns["step"])


def lines(*numbers):
    return "".join(record(number, number / 10) for number in numbers)


def test_a_file_that_grows_is_read_on(file):
    tail = MetricsTail(file)
    assert not tail.refresh()
    assert steps(tail) == []
    file.write_text(lines(1, 2))
    assert tail.refresh()
    assert not tail.refresh()
    with file.open("a") as more:
        more.write(lines(3))
    assert tail.refresh()
    assert steps(tail) == [1, 2, 3]
    assert list(tail.columns["train/return_per_game"]) == [0.1, 0.2, 0.3]
    assert tail.generation == 0
    assert tail.newest()["frames"] == 12


def test_half_a_line_waits_for_its_end(file):
    whole = lines(1, 2)
    tail = MetricsTail(file)
    for length in (10, len(whole) - 40, len(whole) - 1, len(whole)):
        file.write_text(whole[:length])
        tail.refresh()
        assert steps(tail) == [1, 2][: whole[:length].count("\n")]
    assert tail.damaged == 0
    assert tail.generation == 0


def test_a_resumed_run_cuts_the_file_and_goes_on(file):
    file.write_text(lines(1, 2, 3, 4))
    tail = MetricsTail(file)
    tail.refresh()
    os.truncate(file, len(lines(1, 2)))
    assert tail.refresh()
    assert steps(tail) == [1, 2]
    assert tail.generation == 1


def test_a_cut_is_seen_though_the_file_has_grown_past_it_meanwhile(file):
    file.write_text(lines(1, 2, 3))
    tail = MetricsTail(file)
    tail.refresh()
    file.write_text(lines(1, 2) + record(3, 99.0) + lines(4))  # the same length and more, in the same inode
    tail.refresh()
    assert steps(tail) == [1, 2, 3, 4]
    assert list(tail.columns["train/return_per_game"]) == [0.1, 0.2, 99.0, 0.4]
    assert tail.generation == 1


def test_a_file_may_go_and_come(file):
    file.write_text(lines(1, 2))
    tail = MetricsTail(file)
    tail.refresh()
    file.unlink()
    assert tail.refresh()
    assert steps(tail) == []
    file.write_text(lines(7))
    tail.refresh()
    assert steps(tail) == [7]


def test_what_is_no_metrics_is_counted_and_left_out(file):
    bad = ["nonsense", "[1]", "3", '{"loss/td": 1}', '{"step": null}', '{"step": "x"}', '{"step": NaN}', "[" * 5_000]
    huge = '{"step": 9, "a": 1' + "0" * 400 + "}"
    file.write_text("\n".join(bad) + "\n" + lines(8) + huge + "\n")
    file.write_bytes(b"\xff\xfe{\n" + file.read_bytes())
    tail = MetricsTail(file)
    tail.refresh()
    assert tail.damaged == len(bad) + 1
    assert steps(tail) == [8, 9]
    assert tail.columns["a"][0] != tail.columns["a"][0]  # NaN
    assert "null" not in tail.columns


def test_a_metric_may_begin_late_and_be_missing(file):
    file.write_text(lines(1) + record(2, **{"loss/td": 0.5}) + lines(3))
    tail = MetricsTail(file)
    tail.refresh()
    nothing, half, again = tail.columns["loss/td"]
    assert half == 0.5
    assert nothing != nothing
    assert again != again


def test_a_step_written_once_more_replaces_what_came_after(file):
    file.write_text(lines(1, 2, 3, 4) + record(3, 50.0))
    tail = MetricsTail(file)
    tail.refresh()
    assert steps(tail) == [1, 2, 3]
    assert tail.columns["train/return_per_game"][2] == 50.0


def test_a_long_file_is_sampled_evenly_and_has_both_ends(file):
    count = 20_000
    file.write_text(lines(*range(1, count + 1)))
    tail = MetricsTail(file, points=500)
    tail.refresh()
    first = len(tail)
    assert 100 <= first < 200  # a few at first
    tail.refresh()
    assert 495 <= len(tail) <= 502
    assert tail.generation == 1
    assert not tail.refresh()
    assert steps(tail)[0] == 1
    assert steps(tail)[-1] == count
    gaps = [b - a for a, b in zip(steps(tail), steps(tail)[1:], strict=False)]
    assert max(gaps) <= 1.3 * count / 500
    for step, value in zip(steps(tail), tail.columns["train/return_per_game"], strict=True):
        assert value == step / 10  # whole lines, none put together of two


def test_what_is_appended_is_thinned_out_evenly(file):
    file.write_text("")
    tail = MetricsTail(file, points=50)
    for start in range(0, 5_000, 20):
        with file.open("a") as more:
            more.write(lines(*range(start + 1, start + 21)))
        tail.refresh()
        assert len(tail) <= 100
        assert steps(tail) == sorted(set(steps(tail)))
        assert steps(tail)[-1] == start + 20
    assert steps(tail)[0] == 1
    gaps = [b - a for a, b in zip(steps(tail), steps(tail)[1:], strict=False)]
    assert max(gaps) <= 3 * 5_000 / 50
    assert {len(column) for column in tail.columns.values()} == {len(tail)}


def test_long_lines_are_read_and_endless_ones_do_no_harm(file):
    long = json.dumps({"step": 5, "note": "x" * 30_000}) + "\n"
    file.write_text(lines(*range(1, 3)) + "y" * 500_000 + "\n" + long + lines(6))
    tail = MetricsTail(file, points=100)
    for _ in range(3):
        tail.refresh()
    assert steps(tail)[-1] == 6
    assert set(steps(tail)) <= {1, 2, 5, 6}


def test_links_and_pipes_are_not_followed(tmp_path, file):
    other = tmp_path / "other"
    other.write_text(lines(1))
    file.symlink_to(other)
    tail = MetricsTail(file)
    tail.refresh()
    assert steps(tail) == []
    file.unlink()
    os.mkfifo(file)
    tail.refresh()  # would wait for ever
    assert steps(tail) == []


def test_any_order_of_appending_cutting_and_replacing_ends_in_what_the_file_holds(file):
    chance = random.Random(3)
    tail = MetricsTail(file)
    for _ in range(400):
        whole = file.read_text() if file.exists() else ""
        last = json.loads(whole.splitlines()[-1])["step"] if whole.endswith("\n") else 0
        match chance.randrange(6):
            case 0 if whole:  # a resume, perhaps with something written anew
                kept = whole.splitlines(keepends=True)[: chance.randrange(10)]
                os.truncate(file, len("".join(kept)))
            case 1:
                temporary = file.with_suffix(".new")
                temporary.write_text(record(chance.randrange(5), chance.random()))
                temporary.replace(file)
            case 2 if file.exists():
                file.unlink()
            case _:
                with file.open("a") as more:
                    more.write(record(last + 1 + chance.randrange(3), chance.random()))
        if chance.random() < 0.6:
            tail.refresh()
    tail.refresh()
    wanted = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    assert steps(tail) == [line["step"] for line in wanted]
    assert list(tail.columns.get("train/return_per_game", [])) == [line["train/return_per_game"] for line in wanted]
