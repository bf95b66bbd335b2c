"""Cells and tables in Markdown."""

import re
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["NONE", "between", "mean_of", "number", "processor", "table"]

NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(text: str | float, digits: int | None = None) -> str:
    """A number with separators between thousands; other text as it is."""
    try:
        value = float(text)
    except ValueError:
        return str(text) or NONE
    if digits is None:
        digits = len(str(text).partition(".")[2]) if isinstance(text, str) else 0
    return f"{value:,.{digits}f}".replace("-", "−")


def between(low: str, high: str) -> str:
    """A range, one number where both ends are the same."""
    return number(low) if low == high else f"{number(low)} – {number(high)}"


def mean_of(row: Mapping[str, str] | None, digits: int = 1) -> str:
    """A row's mean with its 95% interval."""
    if row is None:
        return NONE
    mean, low, high = (number(float(row[name]), digits) for name in ("mean", "low", "high"))
    return f"{mean} ({low} – {high})"


def processor(machine: str) -> str:
    """A machine without its memory, and what follows it: "2 cores of … (Zen 3, AVX2), 23 GiB"."""
    return re.sub(r", \d+ GiB.*", "", machine)
