"""A process that records one game of one agent file in the background, with the lowest priority.

    python -m pixelq.evaluation.record_worker AGENT.safetensors OUT.mp4 SEED [MAX_FRAMES]

On success stdout is one JSON line; a user error is one line on stderr.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pixelq.errors import PixelqError
from pixelq.games import TEST_GAMES
from pixelq.system import step_back

__all__ = ["main"]

_MAX_FRAMES = 18_000  # five minutes


def main(arguments: Sequence[str] | None = None) -> int:
    """Record a game.

    Args:
        arguments: an agent file, the video's name, the seed, and after how many frames to cut the game.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) not in (3, 4) or not all(word.isdecimal() for word in words[2:]):
        print("usage: record_worker AGENT.safetensors OUT.mp4 SEED [MAX_FRAMES]", file=sys.stderr)
        return 2
    step_back(os.getpid())
    signal.signal(signal.SIGTERM, _leave)
    try:
        import torch

        from pixelq.agent import load_agent
        from pixelq.evaluation.record import record

        torch.set_num_threads(1)
        max_frames = int(words[3]) if len(words) == 4 else _MAX_FRAMES
        agent = load_agent(words[0])
        cap = None if agent.game in TEST_GAMES else max_frames  # those games end on their own
        made = record(agent, words[1], 1, int(words[2]), max_frames=cap)
    except PixelqError as error:
        print(f"pixelq: {error}", file=sys.stderr)
        return error.exit_status
    print(json.dumps({"score": made.scores[0], "frames": made.frames, "seconds": made.seconds}))
    return 0


def _leave(_signal: int, _frame: object) -> NoReturn:
    sys.exit(143)  # as an exception, so that no unfinished file stays behind


if __name__ == "__main__":
    sys.exit(main())
