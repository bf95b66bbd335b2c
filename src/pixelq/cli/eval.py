"""`pixelq eval`: score an agent."""

import errno
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pixelq.cli.options import parse
from pixelq.cli.players import Play, open_play, show_games
from pixelq.run.storage import StorageError

if TYPE_CHECKING:
    from pixelq.agent import Agent
    from pixelq.evaluation.evaluate import EvalResult

__all__ = ["run"]

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}  # a read-only run of another user


@dataclass(frozen=True)
class _Options:
    play: Annotated[Play, tyro.conf.arg(name="")]
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 30
    """Games to play."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The last line of stdout is the result as JSON."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Play whole games and summarise their raw scores. A run directory keeps the result in its eval/."
    options = parse(_Options, words, "pixelq eval", about)
    play = options.play
    play.check(options.episodes)

    from pixelq.agent import Agent
    from pixelq.evaluation.evaluate import evaluate
    from pixelq.evaluation.kept import is_run

    player, protocol = open_play(play)
    with show_games(f"{player.game}, protocol {protocol.name}") as progress:
        result = evaluate(player, protocol, options.episodes, play.seed, threads=play.threads, progress=progress)
    at = f" at step {player.card.step:,}" if isinstance(player, Agent) else ""
    with suppress(BrokenPipeError):  # keep the scores even if the output's reader has ended
        print(f"{player.game}: {play.agent}{at}, seed {play.seed}", *_lines(result), sep="\n", flush=True)
    try:
        if isinstance(player, Agent) and is_run(play.agent):
            print(_keep(Path(play.agent), player, result, play.seed))
    finally:  # also if the disk is full
        if options.json:
            print(json.dumps(result.to_json()))
    return 0


def _keep(run: Path, agent: "Agent", result: "EvalResult", seed: int) -> str:
    """Keep a result in the run directory, if that may be written at all; returns what to say of it."""
    from pixelq.evaluation.kept import keep_result

    try:
        return f"saved as {keep_result(run, agent, result, seed)}"
    except StorageError as error:
        if getattr(error.__cause__, "errno", None) not in _READ_ONLY:
            raise
        return f"not kept: {error}"


def _lines(result: "EvalResult") -> list[str]:
    """What a person reads."""
    low, high = result.ci95
    human = result.human_normalised
    normalised = "–" if human is None else f"{human:.3f} (random play 0, human 1)"
    return [
        result.settings,
        f"{result.episodes} game{'s' * (result.episodes != 1)}, {result.frames:,} frames",
        f"mean              {result.mean:.2f}  (95% between {low:.2f} and {high:.2f})",
        f"median            {result.median:.2f}",
        f"IQM               {result.iqm:.2f}",
        f"human-normalised  {normalised}",
        f"raw scores        {' '.join(f'{score:g}' for score in result.scores)}",
        *result.notes(),
    ]
