import numpy as np
import pytest
import torch

from pixelq.config import NetworkConfig
from pixelq.networks import make_network
from pixelq.viewer.saliency import gradient_saliency, occlusion_saliency

CPU = torch.device("cpu")
OBS = np.random.default_rng(0).integers(0, 256, (4, 84, 84), dtype=np.uint8)


def linear(weights):
    """Action values that are weighted sums of the pixels in 0…1: [A, 4, 84, 84] weights."""
    return lambda obs: torch.einsum("bpij,apij->ba", obs.float() / 255, weights)


def test_the_gradient_of_a_weighted_sum_is_its_weights():
    weights = torch.zeros(2, 4, 84, 84)
    weights[0, 0, 3, 5] = -2.0
    weights[1, 1, 10, 20] = 0.5
    weights[1, 3, 10, 20] = -1.5  # the larger of two planes counts, whatever its sign
    weights[1, 2, 83, 83] = 0.25
    obs = np.zeros((4, 84, 84), np.uint8)
    obs[1, 10, 20] = 255  # Q = (0, 0.5): the second action's value is the highest
    expected = np.zeros((84, 84), np.float32)
    expected[10, 20], expected[83, 83] = 1.5, 0.25
    np.testing.assert_allclose(gradient_saliency(linear(weights), obs, CPU), expected)


def test_the_gradient_agrees_with_finite_differences_of_a_network():
    network = make_network(NetworkConfig(channels=(2, 3, 4), hidden=8), 3, torch.Generator().manual_seed(3)).double()
    network.requires_grad_(False)
    saliency = gradient_saliency(network.q_values, OBS, CPU)
    pixels = torch.from_numpy(OBS).double()[None]
    best = int(network.q_values(pixels.clone()).argmax())
    step = 1e-4  # of 255
    for row, column in ((0, 0), (17, 40), (41, 41), (79, 3)):
        slopes = []
        for plane in range(4):
            moved = [pixels.clone(), pixels.clone()]
            moved[0][0, plane, row, column] += step
            moved[1][0, plane, row, column] -= step
            up, down = (float(network.q_values(one)[0, best]) for one in moved)
            slopes.append(abs(up - down) / (2 * step) * 255)
        assert saliency[row, column] == pytest.approx(max(slopes), rel=1e-3)


def test_the_gradient_leaves_the_network_alone():
    network = make_network(NetworkConfig(channels=(2, 3, 4), hidden=8), 3, torch.Generator().manual_seed(3))
    with torch.inference_mode():  # as where agents act
        before = network.q_values(torch.from_numpy(OBS)[None])
    kept = OBS.copy()
    first = gradient_saliency(network.q_values, OBS, CPU)
    assert np.array_equal(first, gradient_saliency(network.q_values, OBS, CPU))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(before, network.q_values(torch.from_numpy(OBS)[None]))
    assert np.array_equal(OBS, kept)


def one_pixel(row, column):
    """Two action values that both read one pixel of the newest plane, the second with weight -2."""
    weights = torch.zeros(2, 4, 84, 84)
    weights[0, 3, row, column], weights[1, 3, row, column] = 1.0, -2.0
    return linear(weights)


def test_the_occlusion_of_one_pixel_is_worked_out_by_hand():
    obs = np.zeros((4, 84, 84), np.uint8)
    obs[3, 40, 40] = 255
    saliency = occlusion_saliency(one_pixel(40, 40), obs, CPU)
    # blurred with σ = 3, the pixel keeps g² of itself, g = 1 / Σ exp(-k²/18), k = -12 … 12
    g = 1 / sum(np.exp(-(k**2) / 18) for k in range(-12, 13))
    change = 1 - g**2  # of the pixel, with the patch right on it
    peak = 0.5 * (change**2 + (2 * change) ** 2)
    assert saliency.shape == (84, 84)
    assert saliency[40, 40] == pytest.approx(peak, rel=0.01)  # pixels are rounded to 1/255
    assert saliency[40, 40] == saliency.max()
    # a patch 5 pixels off hides exp(-25/50) of it, and the change is squared
    assert saliency[45, 40] == saliency[40, 35] == pytest.approx(peak * np.exp(-1), rel=0.02)
    assert saliency[35, 45] == pytest.approx(peak * np.exp(-2), rel=0.03)
    assert saliency[42, 40] == pytest.approx(0.6 * saliency[40, 40] + 0.4 * saliency[45, 40], rel=1e-5)
    assert saliency[10, 70] == pytest.approx(0, abs=1e-6)


def test_the_grid_of_patches_reaches_the_edges():
    obs = np.zeros((4, 84, 84), np.uint8)
    obs[3, 80, 0] = 255
    saliency = occlusion_saliency(one_pixel(80, 0), obs, CPU)
    assert np.unravel_index(saliency.argmax(), saliency.shape) == (80, 0)
    np.testing.assert_array_equal(saliency[80:, 0], saliency[80, 0])


def test_only_the_newest_plane_is_occluded_and_what_is_even_has_nothing_to_hide():
    weights = torch.zeros(1, 4, 84, 84)
    weights[0, :3, ::21, ::21] = 1.0
    assert occlusion_saliency(linear(weights), OBS, CPU) == pytest.approx(0, abs=1e-6)
    weights[0, 3, ::21, ::21] = 1.0
    even = np.full((4, 84, 84), 90, np.uint8)
    assert occlusion_saliency(linear(weights), even, CPU) == pytest.approx(0, abs=1e-6)


def test_occlusion_in_batches_is_the_loop_over_patches():
    network = make_network(NetworkConfig(channels=(2, 3, 4), hidden=8), 3, torch.Generator().manual_seed(3))
    network.requires_grad_(False)
    saliency = occlusion_saliency(network.q_values, OBS, CPU)

    def blur(plane):  # a float64 loop, edges mirrored
        kernel = np.exp(-(np.arange(-12, 13) ** 2) / 18)
        padded = np.pad(plane.astype(np.float64), 12, mode="symmetric")
        rows = np.stack([np.convolve(row, kernel / kernel.sum(), "valid") for row in padded])
        return np.stack([np.convolve(row, kernel / kernel.sum(), "valid") for row in rows.T]).T

    plane, blurred = OBS[3].astype(np.float64), blur(OBS[3])
    before = network.q_values(torch.from_numpy(OBS)[None])[0]
    for row, column in ((0, 0), (25, 60), (80, 80)):
        away = np.add.outer((np.arange(84) - row) ** 2, (np.arange(84) - column) ** 2)
        mask = np.exp(-away / 50)
        stack = OBS.copy()
        stack[3] = np.rint(plane * (1 - mask) + blurred * mask)
        change = network.q_values(torch.from_numpy(stack)[None])[0] - before
        assert saliency[row, column] == pytest.approx(0.5 * float((change**2).sum()), rel=0.02)
