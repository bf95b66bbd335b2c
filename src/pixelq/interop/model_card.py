"""The folder of an agent on the hub: weights, card, curve, video, and the page that shows them with their scores."""

import json
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pixelq
from pixelq.agent import Agent
from pixelq.config.algos import kind_of
from pixelq.errors import PixelqError
from pixelq.games import game_kind
from pixelq.hub import AGENT_FILE
from pixelq.interop.exports import export
from pixelq.run.reading import Evaluation, read_evaluation
from pixelq.run.storage import storage_errors

__all__ = ["CARD", "CURVE", "PAGE", "VIDEO", "evaluations_of", "write_agent_folder"]

CARD, CURVE, PAGE, VIDEO = "card.json", "curve.png", "README.md", "replay.mp4"  # the hub plays `replay.mp4` on its own
_WHAT = {
    AGENT_FILE: "the weights, and the agent card in its metadata",
    CARD: "the agent card: game, actions, network, view, training",
    CURVE: "the learning curve",
    VIDEO: "a game it played during training",
}


def evaluations_of(run: Path, agent: Agent) -> list[Evaluation]:
    """The scores that `pixelq eval` kept for an agent in its run's directory; scores of other steps are ignored.

    Args:
        run: the run's directory.
        agent: its newest agent.

    Raises:
        PixelqError: a result is damaged.
    """
    found = [read_evaluation(path) for path in sorted((run / "eval").glob("*.json"))]
    return [one for one in found if (one.step, one.game) == (agent.card.step, agent.game)]


def write_agent_folder(
    agent: Agent, folder: Path, repository: str, scores: Sequence[Evaluation], video: Path | None, curve: Path | None
) -> dict[str, Path]:
    """Write all files of an agent's page on the hub.

    Args:
        agent: an agent with weights.
        folder: where to, a new or empty folder.
        repository: `USER/NAME`, named in the page.
        scores: results for the page, each under its protocol.
        video: an MP4 to show.
        curve: a PNG to show.

    Returns:
        The files by their names on the hub.

    Raises:
        PixelqError: the agent has no weights, or the folder cannot be written.
    """
    card = agent.card
    if game_kind(card.game) == "function":
        raise PixelqError(f"only a Python program can make the game {card.game}: name it module:function to share it")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files = {AGENT_FILE: folder / AGENT_FILE, CARD: folder / CARD}
        export(agent, files[AGENT_FILE])
        text = json.dumps(json.loads(card.to_json()), indent=2, ensure_ascii=False) + "\n"
        files[CARD].write_text(text, encoding="utf-8")
        for name, source in ((CURVE, curve), (VIDEO, video)):
            if source is not None:
                files[name] = folder / name
                shutil.copyfile(source, files[name])
        page = _page(agent, repository, scores, list(files))
        files[PAGE] = folder / PAGE
        files[PAGE].write_text(page, encoding="utf-8")
    return files


def _page(agent: Agent, repository: str, scores: Sequence[Evaluation], files: Sequence[str]) -> str:
    card = agent.card
    name = repository.split("/")[1]
    sections = [
        _metadata(agent, name, scores),
        f"# {name}",
        f"A `{kind_of(card.algo)}` agent (recipe `{card.preset}`) that plays `{card.game}` from pixels, trained for "
        f"{card.step:,} agent steps by pixelq.",
        _use(agent, repository, scores),
        _scores(scores),
        f"## Training\n{_training(agent)}",
    ]
    if CURVE in files:
        sections.append(f"![Mean return per game in training]({CURVE})")
    if VIDEO in files:
        sections.append(f"[A game it played]({VIDEO})")
    sections.append("## Files\n" + "\n".join(f"- `{file}`: {_WHAT[file]}" for file in files))
    return "\n\n".join(sections) + "\n"


def _metadata(agent: Agent, name: str, scores: Sequence[Evaluation]) -> str:
    """The page's metadata for the hub, as YAML; each value as JSON, which YAML includes."""
    kind = kind_of(agent.card.algo)
    game = f"ALE/{agent.game}" if game_kind(agent.game) == "atari" else agent.game
    words = ["reinforcement-learning", "deep-reinforcement-learning", "pixelq", kind, agent.game]
    lines = [
        "---",
        "library_name: pixelq",
        "pipeline_tag: reinforcement-learning",
        "tags:",
        *(f"- {_quoted(word)}" for word in dict.fromkeys(words)),
    ]
    if scores:
        lines += ["model-index:", f"- name: {_quoted(name)}", "  results:"]
    for one in scores:
        deviation = statistics.pstdev(one.scores)
        what = f"mean raw score, protocol {one.protocol}, {len(one.scores)} games, seed {one.seed}"
        lines += [
            "  - task:",
            "      type: reinforcement-learning",
            "      name: reinforcement-learning",
            "    dataset:",
            f"      name: {_quoted(game)}",
            f"      type: {_quoted(game)}",
            f"      config: {_quoted(f'{one.protocol}, seed {one.seed}')}",
            "    metrics:",
            "    - type: mean_reward",
            f"      value: {_quoted(f'{one.mean:.2f} +/- {deviation:.2f}')}",
            f"      name: {_quoted(what)}",
            "      verified: false",
        ]
    return "\n".join([*lines, "---"])


def _use(agent: Agent, repository: str, scores: Sequence[Evaluation]) -> str:
    address = f"hf:{repository}"
    game = f" --game {agent.game}" if ":" in agent.game else ""
    lines = [f"pixelq watch {address}{game}"]
    lines += [
        f"pixelq eval {address}{game} {one.options} --episodes {len(one.scores)} --seed {one.seed}" for one in scores
    ] or [f"pixelq eval {address}{game}"]
    return "\n".join(["## Use", "```", "pip install 'pixelq[hub]'", *lines, "```"])


def _scores(scores: Sequence[Evaluation]) -> str:
    if not scores:
        return "## Scores\nNot evaluated."
    lines = [
        "## Scores",
        "Raw scores of whole games; the same command and seed give the same scores.",
        "",
        "| protocol | games | seed | mean | 95% interval | median | IQM | human-normalised |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in scores:
        normalised = "–" if one.human_normalised is None else f"{one.human_normalised:.3f}"
        lines.append(
            f"| {one.protocol} | {len(one.scores)} | {one.seed} | {one.mean:.2f} | {one.ci95[0]:.2f} – "
            f"{one.ci95[1]:.2f} | {one.median:.2f} | {one.iqm:.2f} | {normalised} |"
        )
    said = dict.fromkeys(line for one in scores for line in (one.settings, *one.notes))
    return "\n".join([*lines, "", *(f"- {line}" for line in said)])


def _training(agent: Agent) -> str:
    card, view = agent.card, agent.card.view
    shape = card.obs_shape
    rows: dict[str, Any] = {
        "game": f"`{card.game}`",
        "actions": " ".join(card.action_meanings),
        "sticky actions": f"{card.sticky:g}",
        "network sees": f"{view.stack} pictures of {shape.height}×{shape.width}, {'colour' if view.colour else 'grey'}",
        "recipe": f"`{card.preset}`",
        "agent steps": f"{card.step:,}",
        "seed": card.seed,
        "pixelq": pixelq.__version__,
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
