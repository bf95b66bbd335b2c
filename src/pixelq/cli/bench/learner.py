"""`pixelq bench learner`: the update alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pixelq.cli.bench.recipes import in_turn, parse_recipes
from pixelq.cli.bench.tables import gigaflops, megabytes, milliseconds, place, print_json, print_table

if TYPE_CHECKING:
    from pixelq.bench.learner import LearnerMeasurement

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """Run the benchmark and return the exit status."""
    recipes = parse_recipes(words, "pixelq bench learner", "Time single updates on a batch of noise.")

    from pixelq.bench.learner import bench_learner
    from pixelq.training.parts import resolve

    results = [bench_learner(resolve(recipe.config), recipe.seconds) for recipe in in_turn(recipes)]
    print_table([_row(result) for result in results])
    if recipes[0].json:
        print_json([result._asdict() for result in results])
    return 0


def _row(result: "LearnerMeasurement") -> dict[str, str]:
    return {
        "preset": result.preset,
        "on": place(result.device, result.precision, result.instructions),
        "threads": str(result.threads),
        "batch": str(result.batch_size),
        "update": f"{result.update_ms:.2f} ms",
        "forward": milliseconds(result.forward_ms),
        "backward": milliseconds(result.backward_ms),
        "optimiser": milliseconds(result.optimiser_ms),
        "GFLOP/s": gigaflops(result.flops_per_second),
        "possible GFLOP/s": gigaflops(result.flops_per_second_possible),
        "bytes moved": megabytes(result.bytes_per_update),
        "peak memory": megabytes(result.peak_resident_bytes),
    }
