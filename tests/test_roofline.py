"""Operations and bytes of the Nature network, against numbers worked out by hand."""

import dataclasses

import pytest
import torch

from pixelq.bench.roofline import count_flops, tensor_bytes
from pixelq.bench.workload import workload_of
from pixelq.networks import make_network
from pixelq.presets import preset

CPU = torch.device("cpu")

# A layer's multiplications and additions for one observation of Breakout, 4 actions:
CONV1 = 8 * 8 * 4 * 32 * 20 * 20 * 2  # 6,553,600: kernels of 8 × 8 × 4, 32 filters, 20 × 20 places
CONV2 = 4 * 4 * 32 * 64 * 9 * 9 * 2  # 5,308,416
CONV3 = 3 * 3 * 64 * 64 * 7 * 7 * 2  # 3,612,672
DENSE = 3136 * 512 * 2  # 3,211,264
HEAD = 512 * 4 * 2  # 4,096
FORWARD = CONV1 + CONV2 + CONV3 + DENSE + HEAD

# Backward, each layer does as much for its weights and as much for its input; the first needs none for its input, the
# pixels. An update is the online network forward and backward, and the target network forward.
UPDATE = 2 * FORWARD + 2 * FORWARD - CONV1

# Weights and biases: 8,224 + 32,832 + 36,928 + 1,606,144 + 2,052
BODY, OUTPUT = (
    (8 * 8 * 4 * 32 + 32) + (4 * 4 * 32 * 64 + 64) + (3 * 3 * 64 * 64 + 64) + (3136 * 512 + 512),
    512 * 4 + 4,
)
STACK = 4 * 84 * 84
BATCH = 32 * (2 * STACK + 8 + 4 + 4 + 4)  # two stacks; action int64; reward, discount, weight float32


def config(name="keras-example", precision="float32", **fields):
    return dataclasses.replace(preset(name), device="cpu", precision=precision, threads=1, **fields)


def test_the_numbers_by_hand():
    assert FORWARD == 18_690_048
    assert UPDATE == 68_206_592
    assert BODY + OUTPUT == 1_686_180


@pytest.mark.parametrize("games", [1, 8])
def test_a_forward_pass(games):
    network = make_network(preset("nature-dqn").network, 4)
    obs = torch.zeros(games, 4, 84, 84, dtype=torch.uint8)
    with torch.inference_mode():
        assert count_flops(lambda: network.q_values(obs)) == games * FORWARD


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["keras-example", "nature-dqn"])
def test_an_update(name, precision):
    recipe = config(name, precision, compile=False)
    update = workload_of(recipe).update(recipe, 4, CPU)
    assert update.batch_size == 32
    assert count_flops(update.whole) == 32 * UPDATE
    assert count_flops(lambda: update.forward().backward()) == 32 * UPDATE


@pytest.mark.slow
def test_operations_are_counted_where_kernels_make_the_update():
    recipe = config(precision="bfloat16")
    assert workload_of(recipe).update(recipe, 4, CPU).flops() == 32 * UPDATE
    plain = dataclasses.replace(recipe, compile=False)
    assert workload_of(recipe).step_cost(recipe, 4) == workload_of(plain).step_cost(plain, 4)


def test_bytes_of_an_update_in_float32():
    recipe = config()
    # online weights forward and backward, target weights, gradients out and in: 5; weights and both of Adam's moments
    # in and out: 6
    assert workload_of(recipe).update(recipe, 4, CPU).bytes == 11 * 4 * (BODY + OUTPUT) + BATCH


def test_bytes_of_an_update_in_bfloat16():
    recipe = config(precision="bfloat16")
    # working weights forward, backward, target's, gradients twice, and written once: 6 at two bytes in the body, 5 at
    # four in the head; masters and both moments in and out: 6 at four
    expected = 6 * 2 * BODY + 5 * 4 * OUTPUT + 6 * 4 * (BODY + OUTPUT) + BATCH
    assert workload_of(recipe).update(recipe, 4, CPU).bytes == expected


def test_cost_of_a_step():
    recipe = config(envs=2)
    cost = workload_of(recipe).step_cost(recipe, 4)
    # an update every 4 steps; ε is 0.1, so in 1 of 100 steps of both games nobody needs the network
    assert cost.flops == pytest.approx(32 * UPDATE / 4 + 0.99 * FORWARD)
    update = 11 * 4 * (BODY + OUTPUT) + BATCH
    # both games share the reading of the weights; a step gives a stack, and a plane of it is stored
    assert cost.bytes == pytest.approx(update / 4 + 0.99 * 4 * (BODY + OUTPUT) / 2 + STACK + 84 * 84)


def test_bytes_of_tensors():
    assert tensor_bytes([torch.zeros(3, 4), torch.zeros(5, dtype=torch.bfloat16), torch.zeros(())]) == 48 + 10 + 4
