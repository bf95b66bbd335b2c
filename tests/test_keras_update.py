"""Updates of the Keras example by Keras itself, on its torch backend, beside ours."""

import dataclasses
import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch

import oracles
from moving import MovingLearner, moving_learner
from pixelq.config import DQNConfig, OptimiserConfig, TrainConfig
from pixelq.presets import preset
from pixelq.types import Batch

pytestmark = [
    pytest.mark.slow,  # importing Keras alone takes seconds
    # NumPy says so of Keras' own variables
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning:keras"
    ),
]

CONFIG = dataclasses.replace(preset("keras-example"), precision="float32")
CPU = torch.device("cpu")
ACTIONS = 4
GAMMA = 0.99
SIZE = 32
LAYERS = ("torso.layers.0", "torso.layers.2", "torso.layers.4", "head.hidden", "head.output")
NAMES = [f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]  # in the order of Keras' variables

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))  # it writes a file there
        module = pytest.importorskip("keras")
        assert module.backend.backend() == "torch"
        yield module


def to_keras(name: str, tensor: torch.Tensor) -> np.ndarray:
    """Our tensor as Keras lays it out: [H, W, in, out] kernels, and features flattened as rows, columns, channels."""
    array = tensor.detach().numpy()
    if name == "head.hidden.weight":
        array = array.reshape(512, 64, 7, 7).transpose(0, 2, 3, 1).reshape(512, 3136)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T


class KerasExample:
    """The notebook's model, target model, optimiser and loss, with its training step."""

    def __init__(self, keras: ModuleType, online: Weights, target: Weights) -> None:
        self.keras = keras
        self.model, self.model_target = self.create_q_model(), self.create_q_model()
        self.model.set_weights([to_keras(name, online[name]) for name in NAMES])
        self.model_target.set_weights([to_keras(name, target[name]) for name in NAMES])
        self.optimizer = keras.optimizers.Adam(learning_rate=0.00025, clipnorm=1.0)
        self.loss_function = keras.losses.Huber()
        self.norms: list[float] = []

    def create_q_model(self):
        layers = self.keras.layers
        inputs = layers.Input(shape=(84, 84, 4))
        layer1 = layers.Conv2D(32, 8, strides=4, activation="relu")(inputs)
        layer2 = layers.Conv2D(64, 4, strides=2, activation="relu")(layer1)
        layer3 = layers.Conv2D(64, 3, strides=1, activation="relu")(layer2)
        layer4 = layers.Flatten()(layer3)
        layer5 = layers.Dense(512, activation="relu")(layer4)
        action = layers.Dense(ACTIONS, activation="linear")(layer5)
        return self.keras.Model(inputs=inputs, outputs=action)

    def update(self, batch: Batch) -> float:
        ops = self.keras.ops
        state_sample, state_next_sample = scaled(batch.obs_tm1), scaled(batch.obs_t)
        rewards_sample, action_sample = batch.r_t.numpy(), batch.a_tm1.numpy()
        done_sample = ops.convert_to_tensor((batch.discount_t == 0).float().numpy())

        with torch.no_grad():
            future_rewards = self.model_target(state_next_sample, training=False)
        updated_q_values = ops.convert_to_tensor(rewards_sample) + GAMMA * ops.max(future_rewards, axis=1)
        updated_q_values = updated_q_values * (1 - done_sample) - done_sample
        masks = ops.one_hot(action_sample, ACTIONS)

        self.model.zero_grad()
        q_values = self.model(state_sample)
        q_action = ops.sum(ops.multiply(q_values, masks), axis=1)
        loss = self.loss_function(updated_q_values, q_action)
        loss.backward()
        grads = [variable.value.grad for variable in self.model.trainable_weights]
        self.norms = [gradient.norm().item() for gradient in grads]
        with torch.no_grad():
            self.optimizer.apply(grads, self.model.trainable_weights)
        return loss.item()

    def copy_to_target(self) -> None:
        self.model_target.set_weights(self.model.get_weights())

    def weights(self) -> dict[str, np.ndarray]:
        return dict(zip(NAMES, self.model.get_weights(), strict=True))


def scaled(obs: torch.Tensor) -> np.ndarray:
    """[B, 4, 84, 84] uint8 as the notebook's wrappers give it: [B, 84, 84, 4] float32 in 0…1."""
    return obs.numpy().transpose(0, 2, 3, 1).astype(np.float32) / 255.0


class Case(NamedTuple):
    """How large the errors are."""

    output_scale: float  # of the online network's last layer, hence of all gradients below it
    rewards: tuple[float, ...]  # largest reward of each update
    clipped: tuple[bool, ...]  # whether some variable's gradient is too long then


CASES = {
    "large errors": Case(5.0, (20.0,), (True,)),
    "small errors": Case(0.1, (0.01,), (False,)),
    "both by turns": Case(5.0, (0.01, 20.0, 0.01, 20.0, 0.01), (False, True, False, True, False)),
}


def make_batch(seed: int, rewards: float) -> Batch:
    """Two terminal transitions, rewards between 0 and `rewards`."""
    rng = np.random.default_rng(seed)
    discounts = np.full(SIZE, GAMMA, np.float32)
    discounts[[3, 17]] = 0.0
    return Batch(
        torch.from_numpy(oracles.screens(rng, SIZE)),
        torch.from_numpy(rng.integers(0, ACTIONS, SIZE)),
        torch.from_numpy(rng.uniform(0, rewards, SIZE).astype(np.float32)),
        torch.from_numpy(discounts),
        torch.from_numpy(oracles.screens(rng, SIZE)),
    )


def next_batch(learner: MovingLearner, seeds: Iterator[int], rewards: float) -> Batch:
    """A batch with gradients that depend on the formulas, not on rounding."""
    for seed in seeds:
        batch = make_batch(seed, rewards)
        if oracles.kink_distance(learner.online, batch.obs_tm1) > 5e-7:
            return batch
    raise AssertionError


def make_learner(case: Case, config: TrainConfig = CONFIG) -> MovingLearner:
    """A learner with two different networks and non-zero biases."""
    learner = moving_learner(config, ACTIONS, CPU, torch.Generator().manual_seed(1))
    other = moving_learner(config, ACTIONS, CPU, torch.Generator().manual_seed(2)).weights()
    noise = torch.Generator().manual_seed(3)
    weights = learner.weights()
    for name in NAMES:
        if name.endswith("bias"):
            weights[name].uniform_(-0.02, 0.02, generator=noise)
    weights["head.output.weight"] *= case.output_scale
    learner.load_weights(weights)
    with torch.no_grad():
        for name, tensor in learner.target.named_parameters():
            tensor.copy_(other[name])
        learner.target.head.output.weight *= 0.1
    return learner


def errors(start, got, wanted):
    """The largest difference of a weight, and the distance relative to the way made, the worst variable's."""
    absolute = max(float(np.abs(got[name] - wanted[name]).max()) for name in NAMES)
    relative = max(
        float(np.linalg.norm(got[name] - wanted[name]) / np.linalg.norm(wanted[name] - start[name])) for name in NAMES
    )
    return absolute, relative


def run(keras, case: Case, config: TrainConfig = CONFIG):
    """Both do the case's updates; yields after each: the losses, both new weights, the start, Keras' gradient norms."""
    learner = make_learner(case, config)
    example = KerasExample(keras, learner.weights(), dict(learner.target.named_parameters()))
    start = example.weights()
    for name in NAMES:
        np.testing.assert_array_equal(start[name], to_keras(name, learner.weights()[name]))
    seeds = itertools.count()
    for count, rewards in enumerate(case.rewards):
        batch = next_batch(learner, seeds, rewards)
        learner.update(batch)
        theirs = example.update(batch)
        ours = {name: to_keras(name, learner.weights()[name]) for name in NAMES}
        yield learner.fetch_metrics().loss, theirs, ours, example.weights(), start, example.norms
        if count == 2:
            learner.copy_to_target()
            example.copy_to_target()


@pytest.mark.parametrize("name", CASES)
def test_updates_equal_those_of_keras(keras, name):
    case = CASES[name]
    done = 0
    for ours, theirs, got, wanted, start, norms in run(keras, case):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
        assert (max(norms) > 1.05) == case.clipped[done], norms
        assert max(norms) < 0.95 or case.clipped[done], norms
        absolute, relative = errors(start, got, wanted)
        assert absolute < 1e-5
        assert relative < 1e-4
        # not because nothing moved: Adam's steps are about as long as its rate
        assert all(np.abs(wanted[name] - start[name]).max() > 1e-4 for name in NAMES)
        done += 1
    assert done == len(case.rewards)


def changed(**changes) -> TrainConfig:
    return dataclasses.replace(CONFIG, **changes)


def optimiser(**changes) -> OptimiserConfig:
    return dataclasses.replace(CONFIG.optimiser, **changes)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("both by turns", changed(optimiser=optimiser(clip="none"))),
        ("both by turns", changed(optimiser=optimiser(clip="global"))),
        ("small errors", changed(optimiser=optimiser(name="adam"))),
        ("small errors", changed(optimiser=optimiser(epsilon=1e-8))),
        ("small errors", changed(algo=DQNConfig(terminal_target=None))),
        ("large errors", changed(algo=DQNConfig(loss="mse", terminal_target=-1.0))),
    ],
)
def test_any_other_recipe_would_be_seen(keras, name, config):
    *_, (_, _, got, wanted, start, _) = run(keras, CASES[name], config)
    assert errors(start, got, wanted)[1] > 1e-2  # a hundred times what the tests above allow


def test_values_equal_those_of_keras(keras):
    learner = make_learner(CASES["large errors"])
    weights = learner.weights()
    example = KerasExample(keras, weights, weights)
    obs = make_batch(7, 1.0).obs_t
    with torch.no_grad():
        theirs = example.model(scaled(obs), training=False).numpy()
        ours = learner.online.q_values(obs).numpy()
    assert np.ptp(theirs) > 0.01
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_initial_weights_are_spread_as_those_of_keras(keras):
    learner = moving_learner(CONFIG, ACTIONS, CPU, torch.Generator().manual_seed(1))
    keras.utils.set_random_seed(0)
    example = KerasExample(keras, learner.weights(), learner.weights())
    theirs = dict(zip(NAMES, example.create_q_model().get_weights(), strict=True))
    for name, tensor in learner.weights().items():
        ours = to_keras(name, tensor)
        assert ours.shape == theirs[name].shape
        if name.endswith("bias"):
            assert not ours.any()
            assert not theirs[name].any()
        else:
            assert np.std(ours) == pytest.approx(np.std(theirs[name]), rel=0.05)
            assert np.abs(ours).max() == pytest.approx(np.abs(theirs[name]).max(), rel=0.01)
