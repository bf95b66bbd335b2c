"""`pixelq report`: tables and pictures of a folder of runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_folder

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """A sweep's folder, or any folder with run directories."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for report.md, scores.csv and pictures (default: `report` in DIR)."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The last line of stdout is the report's numbers as JSON."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "From run directories to tables and pictures: every game and seed, and statistics over games."
    options = parse(_Options, words, "pixelq report", about)
    place = options.out or options.folder / "report"
    if options.out is not None:
        check_new_folder("--out", options.out)

    from pixelq.reports.report import report
    from pixelq.reports.tables import as_markdown

    made = report(options.folder, place)
    print(as_markdown(made, []))
    print(place, flush=True)
    if options.json:
        print(json.dumps(made.to_json()))
    return 0
