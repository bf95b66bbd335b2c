"""Follows a run's `metrics.jsonl` while it is written, cut and written anew, and keeps some thousand points of it."""

import json
import math
import os
import stat
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pixelq.system import open_flags, read_at

__all__ = ["MetricsTail"]

_POINTS = 800  # kept of each curve; up to twice as many between two thinnings
_FIRST_POINTS = 150
_WHOLE_BYTES = 300_000  # smaller files are read whole, of larger ones only every n-th line
_LONGEST_LINE = 65_536
_CHUNK = 1_024  # holds the rest of one line and the next, as a rule
_NAN = float("nan")


class MetricsTail:
    """The numbers of one metrics file, thinned out evenly over the steps; the first and the last line are among them.

    A long file is not read but sampled: lines at evenly spaced offsets are taken, so that it costs the same however
    long it is; at first a few, so that many runs are there at once, the next time as many as are kept. What is
    appended later is read line by line. A line that is not finished waits for its end. After a
    resumed run has cut the file, or it was replaced, it is read anew.

    Args:
        path: the file; it may come and go.
        points: how many points are kept, at least two.
    """

    columns: dict[str, "array[float]"]
    """The values of every numeric metric; NaN where a line has none. All have one length."""
    generation: int
    """Goes up when points that were there have changed; else points are only appended."""
    damaged: int
    """Count of lines that were no metrics."""

    def __init__(self, path: Path, points: int = _POINTS) -> None:
        self._path = path
        self._points = points
        self._seen: tuple[int, ...] = ()
        self._first = True
        self.generation = 0
        self._forget()

    def __len__(self) -> int:
        return len(self.columns["step"])

    def refresh(self) -> bool:
        """Read the new lines; returns whether anything changed."""
        before = (self.generation, len(self))
        try:
            descriptor = os.open(self._path, os.O_RDONLY | open_flags("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY"))
        except OSError:
            self._seen = ()
            self._restart()
            return (self.generation, len(self)) != before
        try:
            status = os.fstat(descriptor)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if (seen != self._seen or self._coarse) and stat.S_ISREG(status.st_mode):
                if seen[:1] != self._seen[:1] or self._coarse or not self._goes_on(descriptor, status.st_size):
                    self._restart()
                self._read(descriptor, status.st_size)
                self._seen = seen
        except OSError:  # a disk that fails; the next time may do
            self._seen = ()
        finally:
            os.close(descriptor)
        return (self.generation, len(self)) != before

    def _forget(self) -> None:
        self.columns = {"step": array("d")}
        self.damaged = 0
        self._coarse = False
        self._offset = 0  # of the first byte that was not read
        self._last_line = b""  # that ends there

    def _restart(self) -> None:
        if self._offset:
            self.generation += 1
            self._forget()

    def _goes_on(self, descriptor: int, size: int) -> bool:
        """Whether the last-read bytes are still at their place in the file."""
        last = self._last_line
        return size >= self._offset and read_at(descriptor, len(last), self._offset - len(last)) == last

    def _read(self, descriptor: int, size: int) -> None:
        end = _last_line_end(descriptor, self._offset, size)
        if end == self._offset:
            return
        if end - self._offset <= _WHOLE_BYTES:
            lines: Iterable[bytes] = read_at(descriptor, end - self._offset, self._offset).splitlines()
        else:
            self._coarse = self._first
            lines = _sampled(descriptor, self._offset, end, _FIRST_POINTS if self._first else self._points)
        self._first = False
        for line in lines:
            self._add(line)
        self._offset = end
        self._last_line = _line_before(descriptor, end)
        if len(self) > 2 * self._points:
            self._thin()

    def _add(self, line: bytes) -> None:
        try:
            record = json.loads(line.decode())
            step = float(record["step"])
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            step = _NAN
        if not math.isfinite(step):
            self.damaged += 1
            return
        columns = self.columns
        steps = columns["step"]
        if steps and step <= steps[-1]:  # written again: the later line counts
            self._drop_from(step)
        rows = len(steps)
        for key, value in record.items():
            if value.__class__ is float or value.__class__ is int:
                column = columns.get(key)
                if column is None:
                    column = columns[key] = array("d", [_NAN]) * rows
                try:
                    column.append(value)
                except OverflowError:  # a whole number of more than 308 digits
                    column.append(_NAN)
        for column in columns.values():
            if len(column) == rows:
                column.append(_NAN)

    def _drop_from(self, step: float) -> None:
        steps = self.columns["step"]
        keep = len(steps)
        while keep and steps[keep - 1] >= step:
            keep -= 1
        for column in self.columns.values():
            del column[keep:]
        self.generation += 1

    def _thin(self) -> None:
        """Keep the points nearest to evenly spaced steps."""
        steps = self.columns["step"]
        width = (steps[-1] - steps[0]) / (self._points - 1)
        chosen, wanted = [], steps[0]
        for row, step in enumerate(steps):
            if step >= wanted:
                chosen.append(row)
                wanted = steps[0] + width * (math.floor((step - steps[0]) / width) + 1)
        if chosen[-1] != len(steps) - 1:
            chosen.append(len(steps) - 1)
        self.columns = {key: array("d", [column[row] for row in chosen]) for key, column in self.columns.items()}
        self.generation += 1

    def newest(self) -> Mapping[str, float]:
        """The values of the last line; empty if there is none."""
        return {key: column[-1] for key, column in self.columns.items()} if len(self) else {}


def _last_line_end(descriptor: int, start: int, size: int) -> int:
    """The offset after the last finished line, `start` if none ends after it."""
    begin = max(start, size - _LONGEST_LINE)
    return begin + found + 1 if (found := read_at(descriptor, size - begin, begin).rfind(b"\n")) >= 0 else start


def _line_before(descriptor: int, end: int) -> bytes:
    """The line that ends at an offset, its newline included."""
    begin = max(0, end - _LONGEST_LINE)
    block = read_at(descriptor, end - begin, begin)
    return block[block.rfind(b"\n", 0, -1) + 1 :]


def _sampled(descriptor: int, start: int, end: int, count: int) -> Iterator[bytes]:
    """Lines at evenly spaced offsets, each once, the first and the last among them."""
    position = start
    for number in range(count):
        wanted = start + (end - start) * number // count
        if wanted <= position and number:
            continue  # inside a line that was taken
        line, position = _line_after(descriptor, wanted, end, number == 0)
        if line:
            yield line
    last = _line_before(descriptor, end)
    if end - len(last) >= position:
        yield last


def _line_after(descriptor: int, offset: int, end: int, at_start: bool) -> tuple[bytes, int]:
    """The first whole line from an offset on and where it ends; an offset that starts no line is inside one."""
    length = _CHUNK
    while True:
        block = read_at(descriptor, min(length, end - offset), offset)
        begin = 0 if at_start else block.find(b"\n") + 1
        stop = block.find(b"\n", begin) + 1
        if (at_start or begin) and stop:
            return block[begin:stop], offset + stop
        if length >= 2 * _LONGEST_LINE or offset + length >= end:
            return b"", offset + len(block)
        length *= 8
