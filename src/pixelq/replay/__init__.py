"""Experience replay: each plane stored once, batches rebuilt from planes."""

from pixelq.replay.buffer import ReplayBuffer

__all__ = ["ReplayBuffer"]
