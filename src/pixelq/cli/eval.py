"""`pixelq eval`: score an agent."""

import dataclasses
import errno
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pixelq.cli.options import parse
from pixelq.cli.players import RANDOM, check_play, open_player, show_games
from pixelq.evaluation import choose_protocol
from pixelq.run.rundir import RunDir
from pixelq.run.storage import StorageError, storage_errors

if TYPE_CHECKING:
    from pixelq.agent import Agent
    from pixelq.evaluation.evaluate import EvalResult

__all__ = ["run"]

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}  # somebody else's run, which may only be read


@dataclass(frozen=True)
class _Options:
    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory, a .safetensors or .onnx file, hf:USER/NAME, `breakout`, which comes along, or `random`."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="P")] = None
    """How it is played: nature (Atari's default), noop, dopamine or machado; plain for games that are not Atari's."""
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 30
    """Games to play."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Seed of the games and of all chance; the same seed gives the same scores."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network lives."""
    game: Annotated[str | None, tyro.conf.arg(metavar="G")] = None
    """What `random` plays: a ROM name, a Gymnasium id or `module:name` (default: breakout); an agent plays its own."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The last line of stdout is the result as JSON."""


def run(words: Sequence[str]) -> int:
    """Run the verb and return the exit status."""
    about = "Play whole games and sum up their raw scores. Of a run directory, the result is also kept in its eval/."
    options = parse(_Options, words, "pixelq eval", about)
    check_play(options.agent, options.game, options.protocol, options.episodes, options.seed)

    from pixelq.agent import Agent
    from pixelq.evaluation.evaluate import evaluate

    player = open_player(options.agent, options.game, options.device)
    protocol = choose_protocol(options.protocol, player.game)
    with show_games(f"{player.game}, protocol {protocol.name}") as progress:
        result = evaluate(player, protocol, options.episodes, options.seed, progress=progress)
    at = f" at step {player.card.step:,}" if isinstance(player, Agent) else ""
    with suppress(BrokenPipeError):  # a reader who has gone is no reason to lose the scores
        print(f"{player.game}: {options.agent}{at}, seed {options.seed}", *_lines(result), sep="\n", flush=True)
    try:
        if isinstance(player, Agent) and options.agent != RANDOM and Path(options.agent).is_dir():
            print(_keep(Path(options.agent), player, result, options.seed))
    finally:  # nor is a disk that is full
        if options.json:
            print(json.dumps(result.to_json()))
    return 0


def _keep(run: Path, agent: "Agent", result: "EvalResult", seed: int) -> str:
    """Keep a result in the run directory, if that may be written at all; returns what to say of it."""
    try:
        return f"saved as {_save(run, agent, result, seed)}"
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
        f"{result.episodes} games, {result.frames:,} frames",
        f"mean              {result.mean:.2f}  (95% between {low:.2f} and {high:.2f})",
        f"median            {result.median:.2f}",
        f"IQM               {result.iqm:.2f}",
        f"human-normalised  {normalised}",
        f"raw scores        {' '.join(f'{score:g}' for score in result.scores)}",
        *result.notes(),
    ]


def _save(run: Path, agent: "Agent", result: "EvalResult", seed: int) -> Path:
    """Keep a result in the run directory, with everything it takes to get it again."""
    protocol = result.protocol
    record: dict[str, Any] = {
        **result.to_json(),
        "step": agent.card.step,
        "seed": seed,
        "settings": {
            **dataclasses.asdict(protocol),
            "fire_at_start": True,
            "fire_after_life_loss": agent.card.fire_after_life_loss,
            "action_meanings": list(agent.action_meanings),
            "text": result.settings,
        },
        "frames": result.frames,
        "notes": result.notes(),
    }
    place = RunDir(run)
    with storage_errors(place.eval):
        place.eval.mkdir(exist_ok=True)
    return place.write_json(f"eval/{protocol.name}-step-{agent.card.step}-seed{seed}.json", record)
