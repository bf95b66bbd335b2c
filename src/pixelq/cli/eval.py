"""`pixelq eval`: score an agent."""

import errno
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.players import check_play, open_player, show_games
from pixelq.evaluation import Changes
from pixelq.run.storage import StorageError

if TYPE_CHECKING:
    from pixelq.agent import Agent
    from pixelq.evaluation.evaluate import EvalResult

__all__ = ["run"]

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}  # a read-only run of another user


@dataclass(frozen=True)
class _Options:
    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory, a .safetensors or .onnx file, hf:USER/NAME, `breakout` (ships with pixelq), or `random`."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="P")] = None
    """Protocol: nature (default on Atari), noop, dopamine, machado, or plain (default elsewhere)."""
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 30
    """Games to play."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Seed of the games and of all random choices. The same seed gives the same scores."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network lives."""
    game: Annotated[str | None, tyro.conf.arg(metavar="G")] = None
    """Game for `random`: a ROM name, a Gymnasium id or `module:name` (default: breakout). Agents play their own."""
    epsilon: Annotated[float | None, tyro.conf.arg(metavar="E")] = None
    """ε in place of the protocol's. The score's name says so."""
    sticky: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Sticky-action probability in place of the protocol's. The score's name says so."""
    noops: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """No-op frames at a game's start, at most, in place of the protocol's. The score's name says so."""
    max_frames: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Frame cap of a game in place of the protocol's. The score's name says so."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The last line of stdout is the result as JSON."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Play whole games and summarise their raw scores. A run directory keeps the result in its eval/."
    options = parse(_Options, words, "pixelq eval", about)
    changes = Changes(options.epsilon, options.sticky, options.noops, options.max_frames)
    check_play(options.agent, options.game, options.protocol, options.episodes, options.seed, changes)

    from pixelq.agent import Agent
    from pixelq.evaluation.evaluate import evaluate
    from pixelq.evaluation.kept import is_run
    from pixelq.evaluation.players import conditions

    player = open_player(options.agent, options.game, options.device)
    protocol = conditions(player, options.protocol, changes)
    with show_games(f"{player.game}, protocol {protocol.name}") as progress:
        result = evaluate(player, protocol, options.episodes, options.seed, progress=progress)
    at = f" at step {player.card.step:,}" if isinstance(player, Agent) else ""
    with suppress(BrokenPipeError):  # keep the scores even if the output's reader has ended
        print(f"{player.game}: {options.agent}{at}, seed {options.seed}", *_lines(result), sep="\n", flush=True)
    try:
        if isinstance(player, Agent) and is_run(options.agent):
            print(_keep(Path(options.agent), player, result, options.seed))
    finally:  # nor is a disk that is full
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
