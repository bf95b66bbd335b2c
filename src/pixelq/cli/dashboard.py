"""`pixelq dashboard`: a local page over run directories."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pixelq.cli.options import parse

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    runs: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")] = Path("runs")
    """A folder of runs, or one run directory."""
    port: Annotated[int, tyro.conf.arg(metavar="P")] = 8000
    """Port to listen at. 0: any free port."""
    host: Annotated[str, tyro.conf.arg(metavar="H")] = "127.0.0.1"
    """Address to listen at. Beyond this machine, the page asks for a token; the printed URL has it."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Serve a page with the curves, scores, videos and settings of runs, live or finished. Only reads."
    options = parse(_Options, words, "pixelq dashboard", about)

    from pixelq.viewer.dashboard import make_dashboard
    from pixelq.viewer.guard import serve

    serve(make_dashboard(options.runs), options.host, options.port, "dashboard")
    return 0
