"""`pixelq bench train`: training as a whole."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pixelq.cli.bench.recipes import in_turn, parse_recipes
from pixelq.cli.bench.tables import gigaflops, megabytes, place, print_json, print_table

if TYPE_CHECKING:
    from pixelq.bench.train import TrainMeasurement

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """Run the benchmark and return the exit status."""
    about = "Train for a while and count the steps after the warm-up. Shows the limits of this machine beside them."
    recipes = parse_recipes(words, "pixelq bench train", about)

    from pixelq.bench.train import bench_train
    from pixelq.training.parts import resolve

    results = [bench_train(resolve(recipe.config), recipe.seconds) for recipe in in_turn(recipes)]
    print_table([_row(result) for result in results])
    if recipes[0].json:
        print_json([result._asdict() for result in results])
    return 0


def _row(result: "TrainMeasurement") -> dict[str, str]:
    return {
        "preset": result.preset,
        "game": f"{result.envs} × {result.game}",
        "on": place(result.device, result.precision, result.instructions),
        "threads": str(result.threads),
        "steps/s": f"{result.steps_per_second:,.0f}",
        "frames/s": f"{result.frames_per_second:,.0f}",
        "emulator frames/s a core": f"{result.emulator_frames_per_second_per_core:,.0f}",
        "GFLOP/s": gigaflops(result.flops_per_second),
        "possible GFLOP/s": gigaflops(result.flops_per_second_possible),
        "bytes moved/s": megabytes(result.bytes_per_second),
        "peak memory": megabytes(result.peak_resident_bytes),
    }
