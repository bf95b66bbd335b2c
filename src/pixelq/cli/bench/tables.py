"""Output of the benchmarks: a table for people, a line of JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence

__all__ = ["gigaflops", "megabytes", "milliseconds", "place", "print_json", "print_table"]

_WIDTH = 200  # characters of a line in a file or a pipe
_GAP = 2  # characters between columns


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print figures under their names; where that is too wide, a block of lines for each row.

    Args:
        rows: one at least, all with the same keys, which are the columns' heads.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else _WIDTH, markup=False, highlight=False)
    widths = [max(len(head), *(len(row[head]) for row in rows)) for head in rows[0]]
    if sum(widths) + _GAP * (len(widths) - 1) > console.width:
        for row in rows:
            block = Table.grid(padding=(0, _GAP, 0, 0))
            for head, figure in row.items():
                block.add_row(head, figure)
            console.print(block, "")
        return
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for index, head in enumerate(rows[0]):
        table.add_column(head, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def print_json(results: Sequence[Mapping[str, object]]) -> None:
    """Print the results as the one line that programs read."""
    print(json.dumps({"results": results}))


def gigaflops(flops_per_second: float) -> str:
    """Operations a second, in thousand millions."""
    return f"{flops_per_second / 1e9:,.1f}"


def milliseconds(time: float | None) -> str:
    """Milliseconds; a dash if it was not measured separately."""
    return "–" if time is None else f"{time:.2f}"


def megabytes(size: float | None) -> str:
    """Bytes in millions; a dash if unknown."""
    return "–" if size is None else f"{size / 1e6:,.0f} MB"


def place(device: str, precision: str, instructions: str | None) -> str:
    """Where networks were computed, in words."""
    return ", ".join(filter(None, (device, precision, instructions)))
