"""Agents at play side by side, as a GIF: python benchmarks/moving_picture.py OUT.gif LABEL=AGENT[@FRAME]...

Each AGENT is a run directory, a `.safetensors` file, `breakout` or `random`. Its part begins at the frame after `@`.
The README's picture shows `random`, a run of `fast --seed 2 --threads 1` after one minute and after a third of its
steps, and `breakout`: `docs/results/playing.gif "before training=random" "after 28,000 steps=EARLY.safetensors"
"after 214,000 steps=LATER.safetensors@2400" "the agent that ships=breakout@5400"`.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pixelq.agent import load_agent
from pixelq.envs.episodes import EpisodeTracker
from pixelq.envs.interface import game_seed
from pixelq.evaluation.players import Player, Policy, RandomAgent, env_config, make_games
from pixelq.evaluation.protocols import PROTOCOLS
from pixelq.evaluation.screens import make_screen
from pixelq.run.seeding import stream, stream_seed

__all__ = ["main", "pictures"]

_SEED = 9
_SECONDS, _RATE = 12, 15  # a picture of every fourth frame
_SCALE, _LABEL = 2, 20  # pixels


def pictures(agent: Player, seed: int = _SEED) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Play games without end under protocol `nature`.

    Args:
        agent: who plays.
        seed: of the games and of all chance.

    Yields:
        After each step, four frames: the picture [H, W, 3] uint8 and the game's score so far.
    """
    protocol, number = PROTOCOLS["nature"], 0
    while True:
        games_seed = stream_seed(seed, f"recorded game {number}")
        games = make_games(agent, protocol, 1, games_seed, 1)
        screen = make_screen(agent.game, env_config(agent, protocol), game_seed(games_seed, 0, 0), games)
        chance = stream(seed, f"recorded actions {number}")
        policy, tracker = Policy(agent, games.action_meanings, protocol.epsilon, chance), EpisodeTracker(1)
        result, score, life_lost = games.reset(), 0.0, np.zeros(1, np.bool_)
        tracker.reset(result)
        yield screen.start(result), score
        while not (result.terminated[0] or result.truncated[0]):
            actions = policy.act(result.obs, life_lost)
            games.send(actions)
            result = games.recv()
            score += float(result.reward[0])
            life_lost, _ = tracker.update(result)
            yield list(screen.step(int(actions[0]), result))[-1], score
        screen.close()
        games.close()
        number += 1


def _panel(label: str, picture: NDArray[np.uint8], score: float) -> Image.Image:
    shown = Image.fromarray(picture)
    shown = shown.resize((shown.width * _SCALE, shown.height * _SCALE), Image.Resampling.NEAREST)
    panel = Image.new("RGB", (shown.width + 8, shown.height + _LABEL), "white")
    panel.paste(shown, (4, _LABEL))
    ImageDraw.Draw(panel).text((6, 4), f"{label}: {score:.0f} points", fill="black", font_size=13)
    return panel


def main(arguments: list[str]) -> int:
    """Write the picture that the command line names."""
    out, *parts = arguments
    shows = []
    for part in parts:
        label, _, who = part.rpartition("=")
        name, _, frame = who.partition("@")
        agent = RandomAgent("breakout") if name == "random" else load_agent(name)
        start = int(frame or 0) // 4
        shows.append([_panel(label, *shot) for shot in islice(pictures(agent), start, start + _SECONDS * _RATE)])
    frames = []
    for panels in zip(*shows, strict=True):
        frame = Image.new("RGB", (sum(panel.width for panel in panels), panels[0].height), "white")
        for place, panel in enumerate(panels):
            frame.paste(panel, (place * panel.width, 0))
        frames.append(frame.quantize(32, dither=Image.Dither.NONE))
    frames[0].save(Path(out), save_all=True, append_images=frames[1:], duration=1000 // _RATE, loop=0, optimize=True)
    print(f"{out}: {len(frames)} pictures, {Path(out).stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
