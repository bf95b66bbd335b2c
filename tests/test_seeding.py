"""Named random streams."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pixelq.run.seeding import generator_state, restore_generator, stream, stream_seed


def test_a_stream_is_fixed_by_seed_and_name():
    # written down once: a change here would change every run ever made
    assert stream(1, "explore").integers(0, 1000, 5).tolist() == [207, 944, 456, 826, 187]
    assert stream_seed(1, "weights") == 4743754238275385400


def test_streams_do_not_depend_on_the_process():
    code = "from pixelq.run.seeding import stream, stream_seed; print(stream(7, 'a').random(), stream_seed(7, 'a'))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert printed == {f"{stream(7, 'a').random()} {stream_seed(7, 'a')}\n"}


def test_other_names_and_seeds_give_other_streams():
    names = ["a", "b", "ab", "", "explore", "replay"]
    firsts = {stream(seed, name).random() for seed in (0, 1, 2**31 - 1) for name in names}
    seeds = {stream_seed(seed, name) for seed in (0, 1, 2**31 - 1) for name in names}
    assert len(firsts) == len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("draws", [0, 1, 2, 7])
def test_a_restored_generator_goes_on_bit_for_bit(draws):
    generator = stream(3, "replay")
    for _ in range(draws):
        generator.integers(0, 10, dtype=np.int32)  # leaves half a word behind, which must be kept too
    state = json.loads(json.dumps(generator_state(generator)))
    restored = restore_generator(state)
    assert (
        restored.integers(0, 2**31, 50, dtype=np.int32).tolist()
        == generator.integers(0, 2**31, 50, dtype=np.int32).tolist()
    )
    assert restored.standard_normal(5).tolist() == generator.standard_normal(5).tolist()


def test_the_state_is_taken_not_shared():
    generator = stream(3, "x")
    state = generator_state(generator)
    first = generator.random()
    assert restore_generator(state).random() == restore_generator(state).random() == first


def test_another_generators_state_is_refused():
    with pytest.raises(ValueError):
        restore_generator(np.random.Generator(np.random.Philox(1)).bit_generator.state)
