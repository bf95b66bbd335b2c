"""The metrics of a run, as lines and as TensorBoard's events."""

import errno
import json
import os

import numpy as np
import pytest
import torch

from pixelq.run.metrics import MetricsLog
from pixelq.run.storage import StorageError


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "metrics.jsonl", tmp_path / "tb"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def scalars(folder):
    """What TensorBoard shows, by tag: (step, value) pairs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_one_object_a_line_exactly(paths):
    log = MetricsLog(*paths)
    log.write({"step": 4, "loss/td": 0.1, "train/return_per_game": None, "note": "é", "done": True})
    log.write({"step": np.int64(8), "loss/td": np.float32(0.5), "q/mean": torch.tensor(2.5), "n": np.bool_(False)})
    log.write({"step": 12, "loss/td": float("nan"), "q/mean": torch.tensor(float("inf"))})
    assert paths[0].read_text() == (  # there before it is closed
        '{"step": 4, "loss/td": 0.1, "train/return_per_game": null, "note": "é", "done": true}\n'
        '{"step": 8, "loss/td": 0.5, "q/mean": 2.5, "n": false}\n'
        '{"step": 12, "loss/td": null, "q/mean": null}\n'
    )
    log.close()


def test_floats_come_back_bit_equal(paths):
    values = [0.1 + 0.2, 1e-300, 1 / 3, 123456789.123456789, -0.0]
    log = MetricsLog(*paths)
    log.write({"step": 1, **{f"a/{i}": value for i, value in enumerate(values)}})
    log.close()
    assert [record.hex() for record in list(lines(paths[0])[0].values())[1:]] == [v.hex() for v in values]


def test_what_is_no_number_is_refused_before_anything_is_written(paths):
    log = MetricsLog(*paths)
    with pytest.raises(TypeError, match="list"):
        log.write({"step": 1, "a": [1]})
    assert log.offset() == 0
    log.close()


def test_tensorboard_shows_every_number_under_its_key(paths):
    log = MetricsLog(*paths)
    log.write({"step": 4, "games": 2, "loss/td": 0.5, "train/return_per_game": None, "note": "text"})
    log.write({"step": 8, "games": 3, "loss/td": float("nan"), "train/return_per_game": 1.5})
    log.close()
    assert scalars(paths[1]) == {
        "games": [(4, 2.0), (8, 3.0)],
        "loss/td": [(4, 0.5)],
        "train/return_per_game": [(8, 1.5)],
    }


def test_a_resumed_run_writes_the_same_bytes_as_one_that_went_on(paths, tmp_path):
    def tick(log, step):
        log.write({"step": step, "loss/td": 1 / step})

    straight = MetricsLog(tmp_path / "straight.jsonl", tmp_path / "straight")
    for step in range(1, 8):
        tick(straight, step)
    straight.close()

    log = MetricsLog(*paths)
    for step in (1, 2, 3):
        tick(log, step)
    offset = log.offset()
    assert offset == paths[0].stat().st_size
    for step in (4, 5):  # never reached a checkpoint
        tick(log, step)
    log.close()
    with paths[0].open("ab") as file:
        file.write(b'{"step": 6, "lo')  # cut by a kill
    log = MetricsLog(*paths, offset, purge_step=4)
    assert log.missing_bytes == 0
    for step in (4, 5, 6, 7):
        tick(log, step)
    log.close()
    assert paths[0].read_bytes() == (tmp_path / "straight.jsonl").read_bytes()
    assert scalars(paths[1]) == scalars(tmp_path / "straight")


def test_events_purge_across_many_resumes_within_one_second(paths):
    log = MetricsLog(*paths)
    log.write({"step": 1, "a": 0.0})
    offset = log.offset()
    for attempt in range(5):
        log.write({"step": 2, "a": float(attempt)})
        log.write({"step": 3, "a": -1.0})
        log.close()
        log = MetricsLog(*paths, offset, purge_step=2)
    log.write({"step": 2, "a": 9.0})
    log.close()
    assert len(list(paths[1].iterdir())) == 6
    assert scalars(paths[1]) == {"a": [(1, 0.0), (2, 9.0)]}


def test_a_foreign_event_file_is_no_obstacle(paths):
    paths[1].mkdir()
    (paths[1] / "events.out.tfevents.backup").write_bytes(b"")
    MetricsLog(*paths).close()


@pytest.mark.parametrize("left", [b"", b'{"step": 1}\n', b'{"step": 1}\n{"st'])
def test_lines_that_somebody_took_away_are_counted(paths, left):
    paths[0].write_bytes(left)
    log = MetricsLog(*paths, offset=24, purge_step=3)
    whole = left[: left.rfind(b"\n") + 1]
    assert log.missing_bytes == 24 - len(whole)
    log.write({"step": 3})
    assert paths[0].read_bytes() == whole + b'{"step": 3}\n'
    assert log.offset() == len(whole) + 12
    log.close()


def test_a_full_disk_is_one_line_and_takes_back_half_a_record(paths, monkeypatch):
    log = MetricsLog(*paths)
    log.write({"step": 1, "a": 1.0})
    before = [path.read_bytes() for path in (paths[0], *paths[1].iterdir())]
    real = os.write
    room = [5]

    def write(descriptor, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(descriptor, data[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", write)
    for room[0] in (5, 0, 17, 30, 50):  # the line is 22 bytes, TensorBoard's record follows
        with pytest.raises(StorageError) as caught:
            log.write({"step": 2, "a": 1.0})
        assert str(caught.value).endswith(": the disk is full")
        assert str(caught.value).startswith(f"cannot write {paths[0].parent}/")
        assert [path.read_bytes() for path in (paths[0], *paths[1].iterdir())] == before
    monkeypatch.undo()
    log.write({"step": 2, "a": 2.0})
    log.close()
    assert [record["step"] for record in lines(paths[0])] == [1, 2]
    assert scalars(paths[1]) == {"a": [(1, 1.0), (2, 2.0)]}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(StorageError, match=r"cannot write .*metrics.jsonl: No such file"):
        MetricsLog(tmp_path / "none" / "metrics.jsonl", tmp_path / "tb")

    def refuse(*args, **kwargs):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match=r"cannot write .*metrics.jsonl: permission denied"):
        MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tb")
