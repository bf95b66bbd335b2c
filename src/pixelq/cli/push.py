"""`pixelq push`: send an agent to the Hugging Face hub."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pixelq.cli.options import parse
from pixelq.cli.places import check_new_place
from pixelq.cli.players import open_agent
from pixelq.errors import PixelqError
from pixelq.extras import need
from pixelq.hub import parse_repository, push_files, sign_in
from pixelq.run.rundir import find_agent
from pixelq.shipped import RANDOM

__all__ = ["run"]


@dataclass(frozen=True)
class _Options:
    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory (its newest checkpoint, with its scores, curve and newest video), or a .safetensors file."""
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """The model on the hub. It is created if it does not exist; otherwise it gets a new revision."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the folder, list its files, and send nothing. Needs no network and no token."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """New folder that keeps the files (default: with --dry-run hub/USER/NAME, else none)."""
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only the owner sees a newly created model."""
    message: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """Message of the new revision (default: game, recipe and step)."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = (
        "Send an agent to the Hugging Face hub: weights, agent card, and a page with scores, curve and video. "
        "Others use it as hf:USER/NAME. The scores come from pixelq eval, kept in the run directory for the same step."
    )
    options = parse(_Options, words, "pixelq push", about)
    if options.agent == RANDOM:
        raise PixelqError("random has no weights: give a run directory or a .safetensors file")
    repository = parse_repository(options.repository)
    folder = options.folder or (Path("hub", *repository.split("/")) if options.dry_run else None)
    if folder is not None:
        check_new_place("--folder", folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise PixelqError(f"{folder} exists already: give --folder a new folder")
    find_agent(options.agent)
    if not options.dry_run:
        need("hub", "huggingface_hub")
        sign_in()
    with _kept(folder) as place:
        files, step = _write(options.agent, place, repository)
        for name, path in files.items():
            print(f"{name:<20}{path.stat().st_size:>14,} bytes")
        if options.dry_run:
            print(f"nothing was sent; {repository} would get {place}")
            return 0
        page = push_files(repository, files, options.message or step, private=options.private)
    print(f"{page}: hf:{repository}")
    return 0


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    """The folder to write; a temporary one is removed at the end."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pixelq-push-") as made:
        yield Path(made)


def _write(name: str, place: Path, repository: str) -> tuple[dict[str, Path], str]:
    """The files by their names on the hub, and a line that describes them."""
    from pixelq.interop.model_card import evaluations_of, write_agent_folder

    agent = open_agent(name, "cpu")
    run = Path(name) if Path(name).is_dir() else None
    scores = [] if run is None else evaluations_of(run, agent)
    videos = [] if run is None else sorted((run / "videos").glob("step-*.mp4"))
    with tempfile.TemporaryDirectory(prefix="pixelq-curve-") as made:
        curve = None if run is None else _curve(run, Path(made))
        files = write_agent_folder(agent, place, repository, scores, videos[-1] if videos else None, curve)
    if not scores:
        hint = f": pixelq eval {name} keeps them" if run is not None else ", which only run directories keep"
        print(f"no scores of step {agent.card.step:,} to show{hint}")
    return files, f"{agent.game}, {agent.card.preset}, step {agent.card.step:,}"


def _curve(run: Path, place: Path) -> Path | None:
    """The run's learning curve; None if it has none."""
    from pixelq.plots.numbers import plotted
    from pixelq.plots.picture import draw

    out = place / "curve.png"
    try:
        draw(plotted([run]), out)
    except PixelqError:  # it logged nothing yet
        return None
    return out
