"""Notes for the user about how a run is computed."""

from pixelq.algos import algo_of
from pixelq.config import ATARI_SHAPE, TrainConfig
from pixelq.engines.choice import Choice, choose
from pixelq.engines.kernels import is_for_kernels
from pixelq.engines.recorded import compiles
from pixelq.learner import Learner
from pixelq.native.library import (
    has_compiler,
    instructions,
    kernels,
    replay_kernels,
    usable_instructions,
    why_missing,
)

__all__ = ["gpu_notes", "kernel_notes", "machine_notes"]


def machine_notes(config: TrainConfig, learner: Learner) -> list[str]:
    """Lines about lost speed and slow starts.

    Args:
        config: resolved.
        learner: the run's learner.
    """
    choice = choose(config, learner.device, learner.online)
    return gpu_notes(config, compiles(config, learner.device)) + kernel_notes(config, choice)


def gpu_notes(config: TrainConfig, compiles: bool) -> list[str]:
    """Notes for users with a GPU, in lines.

    Args:
        config: resolved.
        compiles: whether updates are compiled.
    """
    notes = []
    if config.device == "mps":
        notes.append(
            "Apple GPUs are untested: this code follows PyTorch's documentation. --device cpu is tested and measured"
        )
    if compiles:
        notes.append("the first updates are compiled; the first time this takes half a minute")
    elif config.device == "cuda" and config.compile:
        notes.append(
            "updates are not compiled and take three times as long: torch.compile needs Triton and a C compiler, and "
            "does not work here"
        )
    games = min(64, 4 * config.threads)
    if config.device == "cuda" and config.envs < games // 2:
        notes.append(
            f"{config.envs} games leave the GPU waiting for the emulator: --envs {games} makes more steps a second"
        )
    return notes


def kernel_notes(config: TrainConfig, choice: Choice) -> list[str]:
    """Notes for users with unused speed on their processor, in lines.

    Args:
        config: resolved.
        choice: the chosen engine.
    """
    if config.device != "cpu" or not config.compile:
        return []
    usable, why = usable_instructions(), why_missing() or "there is no C compiler"
    if usable and config.env.obs_shape != ATARI_SHAPE:
        return [
            "PyTorch computes the convolutions, which is slower: pixelq's kernels know only four grey pictures of 84×84"
        ]
    by = instructions() if choice.way == "kernels" else None
    without_compiler = not has_compiler() and is_for_kernels(config)
    if usable and kernels() is None and (choice.lacks_kernels or without_compiler):
        return [
            f"updates are slower than they could be: this processor has {usable[0]}, but pixelq's kernels for it are "
            f"missing: {why}. A wheel of pixelq has them. Building them needs a C compiler (cc, or the one that CC "
            "names) and a writable cache directory"
        ]
    if by is not None and by != usable[0]:
        return [f"updates are by kernels for {by}; those for {usable[0]}, which are quicker, are not here: {why}"]
    if algo_of(config.algo).memory == "replay" and replay_kernels() is None:
        return [f"batches are slower than they could be: the kernels for the replay buffer are missing: {why}"]
    return []
