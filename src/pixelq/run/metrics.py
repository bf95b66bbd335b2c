"""The metrics of a run: one JSON object a line, and the same numbers for TensorBoard."""

import io
import json
import math
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from pixelq.run.storage import storage_errors
from pixelq.system import open_flags

__all__ = ["MetricsLog"]


class MetricsLog:
    """Appends records to `metrics.jsonl` and to TensorBoard's event files.

    Args:
        path: the JSON lines.
        tb_dir: where TensorBoard's event files go.
        offset: bytes that belong to the run so far; the file is cut there, since a resumed run writes once
            more what followed.
        purge_step: the first step that is written anew; TensorBoard forgets it and what came after. None for
            a new run.

    Raises:
        StorageError: a file cannot be written.
    """

    missing_bytes: int
    """Missing bytes of the first `offset`; more than 0 only if lines were removed."""

    def __init__(self, path: Path, tb_dir: Path, offset: int = 0, purge_step: int | None = None) -> None:
        with storage_errors(path):
            path.touch()
            self._lines = _AppendFile(path, _cut(path, offset))
        self.missing_bytes = offset - self._lines.size
        self._events = _EventFile(tb_dir, purge_step)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; it has left the process when this returns.

        Args:
            record: `step`, and values by metric key (`group/name`): numbers (NumPy's and 0-d tensors too),
                text or None. NaN and infinities are written as null.

        Raises:
            StorageError: the disk is full or failing; the record is in neither file.
        """
        plain = {key: _plain(value) for key, value in record.items()}
        size = self._lines.size
        self._lines.append(json.dumps(plain, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        try:
            self._events.write(plain)
        except BaseException:
            self._lines.cut(size)
            raise

    def offset(self) -> int:
        """Bytes on disk so far; a checkpoint saves the number and a resume passes it back."""
        self._lines.sync()
        return self._lines.size

    def close(self) -> None:
        """Close both files."""
        self._lines.close()
        self._events.close()


def _plain(value: Any) -> Any:
    """A JSON value: Python's own numbers, null for NaN and infinities."""
    if hasattr(value, "item"):  # NumPy scalars and 0-d tensors
        value = value.item()
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"a metric must be a number, text or None, not {type(value).__name__}")


def _cut(path: Path, offset: int) -> int:
    """Where to cut: at `offset`, or, if lines are missing, after the last whole one."""
    if path.stat().st_size >= offset:
        return offset
    return path.read_bytes().rfind(b"\n") + 1


class _AppendFile:
    """A file that grows by whole pieces: what did not fit is taken back."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.size = size
        with storage_errors(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | open_flags("O_BINARY"), 0o644)
            os.ftruncate(self._descriptor, size)

    def cut(self, size: int) -> None:
        self.size = size
        with suppress(OSError):  # shrinking needs no room; a disk that fails even at that is past helping
            os.ftruncate(self._descriptor, size)

    def append(self, data: bytes) -> None:
        with storage_errors(self._path):
            try:
                done = 0
                while done < len(data):
                    done += os.write(self._descriptor, data[done:])
            except BaseException:
                self.cut(self.size)
                raise
        self.size += len(data)

    def sync(self) -> None:
        with storage_errors(self._path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class _EventFile:
    """TensorBoard's event file, written in this thread, so that a full disk is an error here and now."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._frame = Event, RecordWriter
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = _AppendFile(folder / _event_name(folder), 0)
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._append(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def write(self, record: Mapping[str, Any]) -> None:
        event = self._event(wall_time=time.time(), step=int(record["step"]))
        for key, value in record.items():
            if key != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                event.summary.value.add(tag=key, simple_value=value)
        self._append(event)

    def _append(self, event: Any) -> None:
        framed = io.BytesIO()
        self._frame(framed).write(event.SerializeToString())
        self._file.append(framed.getvalue())

    def close(self) -> None:
        self._file.close()


def _event_name(folder: Path) -> str:
    """A name that sorts after the others: TensorBoard reads in that order and purges earlier files' repeated steps."""
    names = (path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*"))
    stamps = [int(name) + 1 for name in names if name.isdecimal()]
    stamp = max([int(time.time()), *stamps])
    return f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"
