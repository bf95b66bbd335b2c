"""Settings: JSON and back, every bound of every setting, and settings that exclude each other."""

import dataclasses
import json
import math
from typing import Literal, get_origin

import pytest

from pixelq.config import (
    ALGO_KINDS,
    AlgoConfig,
    C51Config,
    EnvConfig,
    ExplorationConfig,
    IQNConfig,
    MunchausenConfig,
    NetworkConfig,
    OptimiserConfig,
    PQNConfig,
    QRConfig,
    ReplayConfig,
    TrainConfig,
    from_json,
    kind_of,
    option,
    to_json,
    validate,
)
from pixelq.errors import ConfigError, PixelqError
from pixelq.presets import DEFAULT_PRESET, PRESETS, preset

MOST = 10**15
TINY = 5e-324  # the smallest number above 0
BELOW_1 = math.nextafter(1, 0)


def put(config, path, value):
    """A config with the setting at `path` changed."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(config, **{name: put(getattr(config, name), rest, value) if rest else value})


def wrong(config):
    with pytest.raises(ConfigError) as caught:
        validate(config)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_status == 2
    return line


# JSON


@pytest.mark.parametrize("name", PRESETS)
def test_json_gives_a_preset_back(name):
    config = preset(name)
    text = json.dumps(to_json(config), allow_nan=False)
    assert from_json(TrainConfig, json.loads(text)) == config
    assert type(from_json(TrainConfig, json.loads(text)).network.channels) is tuple


def test_json_gives_settings_back_that_are_none_or_whole():
    config = put(put(TrainConfig(), "env.sticky", 0.25), "stop_at", 7.5)
    assert from_json(TrainConfig, to_json(config)) == config
    values = to_json(config)
    values["env"]["sticky"] = None
    values["stop_at"] = 7  # JSON writers drop a zero after the point
    assert from_json(TrainConfig, values) == put(put(config, "env.sticky", None), "stop_at", 7)


def test_what_json_leaves_out_takes_its_default():
    assert from_json(TrainConfig, {}) == TrainConfig()
    assert from_json(TrainConfig, {"env": {"noop_max": 3}}) == put(TrainConfig(), "env.noop_max", 3)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([], "the settings must be an object"),
        ({"env": 3}, '"env" must be an object'),
        ({"env": None}, '"env" must be an object'),
        ({"sed": 1}, 'unknown setting "sed"'),
        ({"env": {"stiky": 0.5}}, 'unknown setting "env.stiky"'),
        ({"seed": "1"}, "\"seed\" is '1': must be a whole number"),
        ({"seed": 1.0}, '"seed" is 1.0: must be a whole number'),
        ({"seed": True}, '"seed" is True: must be a whole number'),
        ({"stop_at": "forty"}, "\"stop_at\" is 'forty': must be a number"),
        ({"stop_at": False}, '"stop_at" is False: must be a number'),
        ({"notebook_log": 1}, '"notebook_log" is 1: must be true or false'),
        ({"game": None}, '"game" is None: must be text'),
        ({"device": "gpu"}, "\"device\" is 'gpu': must be 'auto' or 'cpu' or 'cuda' or 'mps'"),
        ({"env": {"sticky": "often"}}, "\"env.sticky\" is 'often': must be a number"),
        ({"network": {"channels": [1, 2]}}, '"network.channels" is [1, 2]: must be 3 whole numbers'),
        ({"network": {"channels": [1, 2, 3.5]}}, '"network.channels" is (1, 2, 3.5): must be 3 whole numbers'),
        ({"network": {"channels": 32}}, '"network.channels" is 32: must be 3 whole numbers'),
    ],
)
def test_json_of_another_form_is_named(values, says):
    with pytest.raises(ConfigError) as caught:
        from_json(TrainConfig, values)
    assert str(caught.value) == says


@pytest.mark.parametrize("kind", ALGO_KINDS)
def test_json_names_the_algorithm(kind):
    config = dataclasses.replace(TrainConfig(), algo=ALGO_KINDS[kind](gamma=0.5))
    assert kind_of(config.algo) == kind
    values = json.loads(json.dumps(to_json(config)))
    assert values["algo"]["kind"] == kind
    assert from_json(TrainConfig, values) == config


def test_an_algorithm_that_json_does_not_name_well_is_refused():
    says = "\"algo.kind\" is 'dqm': must be 'dqn' or 'munchausen' or 'c51' or 'qr' or 'iqn' or 'pqn'"
    for values, line in (
        ({"kind": "dqm"}, says),
        ({}, says.replace("'dqm'", "None")),
        ({"kind": ["dqn"]}, says.replace("'dqm'", "['dqn']")),
        ([], '"algo" must be an object'),
        ({"kind": "pqn", "n_step": 3}, 'unknown setting "algo.n_step"'),
        ({"kind": "c51", "atoms": 5.5}, '"algo.atoms" is 5.5: must be a whole number'),
    ):
        with pytest.raises(ConfigError) as caught:
            from_json(TrainConfig, {"algo": values})
        assert str(caught.value) == line


def test_a_class_of_ones_own_is_unknown_until_it_is_named():
    with pytest.raises(KeyError, match="TrainConfig is not in ALGO_KINDS"):
        kind_of(TrainConfig())


# bounds: the valid values at the edges, and the invalid ones beyond with the text of the correct range

FRACTION = ([0, 0.5, 1], [-TINY, math.nextafter(1, 2)], "between 0 and 1")
POSITIVE = ([TINY, 1.0], [0.0, -1.0], "above 0")


def between(low, high):
    return [low, high], [low - 1, high + 1], f"between {low:,} and {high:,}"


def at_least(low):
    return [low, MOST], [low - 1], f"at least {low:,}"


BOUNDS = {
    "seed": ([0, 2**31 - 1], [-1, 2**31, 2**64], "between 0 and 2147483647"),
    "total_steps": at_least(1),
    "envs": between(1, 4096),
    "threads": ([0, 1024], [-1, 1025], "between 0 (one a core) and 1,024"),
    "log_every_steps": at_least(1),
    "checkpoint_every_steps": at_least(1),
    "keep_checkpoints": at_least(2),
    "stop_at": ([-1e300, 0, 1e300], [], "a finite number"),
    "window_episodes": between(1, 1_000_000),
    "video_every_episodes": at_least(0),
    "checkpoint_min_seconds": ([0, 0.5], [-TINY], "at least 0"),
    "video_min_seconds": ([0, 0.5], [-TINY], "at least 0"),
    "keep_videos": at_least(1),
    "target_period_steps": at_least(1),
    "env.frame_skip": between(0, 60),
    "env.height": between(36, 512),
    "env.width": between(36, 512),
    "env.stack": between(1, 16),
    "env.crop": (
        [(0, 0, 0, 0), (9, 9, 9, 9)],
        [(-1, 0, 0, 0), (0, 0, 0), (0, 0, 0, 0, 0)],
        "four counts of at least 0",
    ),
    "env.max_steps": at_least(0),
    "env.reward_scale": POSITIVE,
    "env.sticky": ([None, *FRACTION[0]], *FRACTION[1:]),
    "env.noop_max": between(0, 10_000),
    "env.max_frames_per_game": between(4, 10**9),
    "env.max_steps_per_life": at_least(0),
    "env.reseed_steps": between(0, 1_000_000),
    "network.channels": (
        [(1, 1, 1), (1024, 1024, 1024)],
        [(0, 1, 1), (1, 1, -1), (1, 1025, 1), (1, 1), (1, 1, 1, 1)],
        "three counts between 1 and 1,024",
    ),
    "network.width": between(1, 16),
    "network.hidden": between(1, 16_384),
    "network.noisy_sigma": ([0, 0.5, 10], [-TINY, math.nextafter(10, 11)], "between 0 and 10"),
    "network.max_pool": ([0, 11], [-1, 12], "between 0 and 11"),
    "algo.gamma": FRACTION,
    "algo.n_step": between(1, 100),
    "algo.terminal_target": ([None, -1.0, 0], [], "a finite number"),
    "algo.atoms": between(2, 1_001),
    "algo.v_min": ([-1e300, 9.9], [], "a finite number"),
    "algo.v_max": ([-9.9, 1e300], [], "a finite number"),
    "algo.quantiles": between(1, 1_000),
    "algo.target_quantiles": between(1, 1_000),
    "algo.policy_quantiles": between(1, 1_000),
    "algo.cosines": between(1, 1_000),
    "algo.kappa": ([0, 1e300], [-TINY], "at least 0"),
    "algo.munchausen_alpha": FRACTION,
    "algo.munchausen_temperature": POSITIVE,
    "algo.munchausen_clip": ([-1e300, 0], [TINY], "at most 0"),
    "algo.trace_decay": FRACTION,
    "algo.rollout_steps": between(1, 100_000),
    "algo.epochs": between(1, 1_000),
    "algo.minibatches": between(1, 100_000),
    "optimiser.learning_rate": POSITIVE,
    "optimiser.learning_rate_end": ([None, 0, 1.0], [-TINY], "at least 0"),
    "optimiser.epsilon": POSITIVE,
    "optimiser.weight_decay": between(0, 1_000),
    "optimiser.decay": ([0, BELOW_1], [-TINY, 1], "at least 0 and below 1"),
    "optimiser.clip_norm": POSITIVE,
    "replay.capacity": at_least(1),
    "replay.batch_size": between(1, 65_536),
    "replay.train_period": at_least(1),
    "replay.learn_start": at_least(1),
    "replay.priority_exponent": FRACTION,
    "replay.priority_epsilon": POSITIVE,
    "replay.importance_exponent_start": FRACTION,
    "replay.importance_exponent_end": FRACTION,
    "exploration.start": FRACTION,
    "exploration.end": FRACTION,
    "exploration.decay_steps": at_least(0),
    "exploration.decay_from_step": at_least(0),
    "exploration.random_steps": at_least(0),
    "exploration.off_after_step": at_least(0),
}

# a config with room for every bound's edge
ROOMY = dataclasses.replace(
    TrainConfig(),
    replay=ReplayConfig(capacity=MOST, learn_start=1, batch_size=1),
    exploration=ExplorationConfig(start=1.0, end=0.0),
)


def roomy_with(path, value):
    """ROOMY with a setting changed; of the algorithms that have it, the first."""
    config, name = ROOMY, path.removeprefix("algo.")
    if path.startswith("algo."):
        kind = next(kind for kind in ALGO_KINDS.values() if name in {field.name for field in dataclasses.fields(kind)})
        config = dataclasses.replace(config, algo=kind())
        if kind is PQNConfig:
            config = dataclasses.replace(TrainConfig(), envs=4_096, algo=PQNConfig(minibatches=4_096))
    if path == "network.max_pool":
        config = put(config, "network.torso", "impala")
    return put(config, path, value)


@pytest.mark.parametrize("path", BOUNDS)
def test_the_edges_of_a_setting(path):
    right, beyond, wanted = BOUNDS[path]
    for value in right:
        if path != "replay.capacity" or value > 1:  # one transition holds no game, see the conflicts
            validate(roomy_with(path, value))
    for value in beyond:
        assert wrong(roomy_with(path, value)) == f"{option(path)} is {value}: must be {wanted}"


@pytest.mark.parametrize("path", [path for path, (right, *_) in BOUNDS.items() if type(right[-1]) in (int, float)])
def test_what_is_no_number_is_refused(path):
    for value in (math.nan, math.inf, -math.inf):
        assert wrong(roomy_with(path, value)) == f"{option(path)} is {value}: must be {BOUNDS[path][2]}"


@pytest.mark.parametrize("path", [path for path, bound in BOUNDS.items() if bound[0][-1] == MOST])
def test_counts_end_before_integers_do(path):
    assert wrong(put(ROOMY, path, MOST + 1)) == f"{option(path)} is {MOST + 1}: must be at most 1,000,000,000,000,000"


def numbers(kind, prefix=""):
    """Paths of all numeric settings."""
    for field in dataclasses.fields(kind):
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(field.type):
            yield from numbers(field.type, f"{path}.")
        elif field.type == AlgoConfig:
            for kind in ALGO_KINDS.values():
                yield from numbers(kind, f"{path}.")
        elif field.type not in (str, bool) and get_origin(field.type) is not Literal:
            yield path


def test_every_number_has_its_bounds():
    assert set(numbers(TrainConfig)) == set(BOUNDS)


def test_the_parts_are_all_looked_at():
    parts = (EnvConfig, NetworkConfig, OptimiserConfig, ReplayConfig, ExplorationConfig)
    assert {field.type for field in dataclasses.fields(TrainConfig) if dataclasses.is_dataclass(field.type)} == {*parts}


# conflicts


def changed(changes):
    config = TrainConfig()
    for path, value in changes.items():
        config = put(config, path, value)
    return config


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"exploration.start": 0.1, "exploration.end": 0.2},
            "--exploration.end is 0.2: must not be above --exploration.start (0.1)",
        ),
        (
            {"optimiser.learning_rate": 0.01, "optimiser.weight_decay": 100.0},
            "--optimiser.weight-decay is 100.0: must be below 1 / --optimiser.learning-rate (100)",
        ),
        (
            {"replay.capacity": 31, "replay.learn_start": 1},
            "--replay.capacity is 31: must hold a batch, at least 32",
        ),
        (
            {"replay.capacity": 1_000, "replay.learn_start": 1_001},
            "--replay.learn-start is 1001: must not be above --replay.capacity (1000)",
        ),
        (
            {"replay.capacity": 99, "replay.learn_start": 32, "envs": 50},
            "--replay.capacity is 99: too small for 50 games, at least 100",
        ),
        (
            {"replay.capacity": 199, "replay.learn_start": 32, "envs": 50, "algo.n_step": 3},
            "--replay.capacity is 199: too small for 50 games, at least 200",
        ),
    ],
)
def test_settings_that_exclude_each_other(changes, says):
    assert wrong(changed(changes)) == says


PQN = {"algo": PQNConfig()}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"network.spectral_norm": True},
            "--network.spectral-norm needs --network.torso impala: it is put on residual",
        ),
        ({"network.max_pool": 6}, "--network.max-pool needs --network.torso impala"),
        (
            {"network.torso": "impala", "network.norm": "layer"},
            "--network.norm layer does not go with --network.torso impala, which has no norm",
        ),
        (
            {"network.norm": "layer_per_pixel", "network.noisy": True},
            "--network.norm does not go with --network.noisy: noisy layers are not normalised",
        ),
        ({"algo": IQNConfig(munchausen=True, double=True)}, "--algo.double does not go with --algo.munchausen: its"),
        ({"algo": C51Config(v_min=1.0, v_max=1.0)}, "--algo.v-min is 1.0: must be below --algo.v-max (1.0)"),
        (PQN | {"envs": 1, "algo.minibatches": 33}, "--algo.minibatches is 33: a rollout has 32 steps, at most that"),
        (PQN | {"replay.sampling": "prioritised"}, "--replay.sampling does not go with pqn, which learns from fresh"),
        (PQN | {"replay.capacity": 5}, "--replay.capacity does not go with pqn, which learns from fresh rollouts"),
        (PQN | {"target_period_steps": 5}, "--target-period-steps does not go with pqn, which has no target network"),
        ({"algo": QRConfig(n_step=3), "replay.capacity": 31, "replay.learn_start": 1}, "--replay.capacity is 31: must"),
        ({"algo": MunchausenConfig(n_step=0)}, "--algo.n-step is 0: must be between 1 and 100"),
    ],
)
def test_parts_that_cannot_be_combined_say_so(changes, says):
    assert wrong(changed(changes)).startswith(says)


@pytest.mark.parametrize(
    "changes",
    [
        {"algo": C51Config(double=True, n_step=5), "network.dueling": True, "network.noisy": True},
        {"algo": IQNConfig(munchausen=True), "network.torso": "impala", "network.spectral_norm": True},
        {"algo": QRConfig(double=True), "network.norm": "layer", "replay.sampling": "prioritised"},
        PQN | {"network.torso": "impala", "network.max_pool": 6, "network.noisy": True, "network.dueling": True},
    ],
)
def test_parts_combine_freely(changes):
    validate(changed(changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"exploration.start": 0.1, "exploration.end": 0.1},
        {"replay.capacity": 32, "replay.learn_start": 32},
        {"replay.capacity": 100, "replay.learn_start": 32, "envs": 50},
    ],
)
def test_settings_that_just_fit(changes):
    validate(changed(changes))


# presets and what follows from settings


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_and_knows_its_name(name):
    config = preset(name)
    validate(config)
    assert config.preset == name
    assert PRESETS[name].summary
    assert PRESETS[name].source


def test_the_default_preset_is_the_one_that_learns_soonest():
    config = preset(DEFAULT_PRESET)
    assert (config.preset, config.game, config.algo.n_step) == ("fast", "breakout", 2)
    assert config.replay.sampling == "prioritised"


def test_keras_example_is_the_notebooks_recipe():
    config = preset("keras-example")
    assert (config.game, config.algo.terminal_target, config.replay.capacity) == ("breakout", -1.0, 100_000)
    assert (config.optimiser.learning_rate, config.optimiser.epsilon, config.optimiser.clip) == (
        2.5e-4,
        1e-7,
        "per_variable",
    )
    assert (config.stop_on, config.stop_at) == ("return_per_life", 40.0)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nature", 'unknown preset "nature" (did you mean "nature-dqn"?); see: pixelq presets'),
        ("", 'unknown preset ""; see: pixelq presets'),
    ],
)
def test_an_unknown_preset_gets_did_you_mean(name, says):
    with pytest.raises(PixelqError) as caught:
        preset(name)
    assert str(caught.value) == says


def test_what_an_episode_is_follows_from_what_ends_the_run():
    units = {on: dataclasses.replace(TrainConfig(), stop_on=on).episode_unit for on in ("none", "return_per_game")}
    assert units == {"none": "game", "return_per_game": "game"}
    assert dataclasses.replace(TrainConfig(), stop_on="return_per_life").episode_unit == "life"


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().seed = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().env.noop_max = 2


def test_options_are_named_after_their_settings():
    assert option("env.noop_max") == "--env.noop-max"
    assert option("seed") == "--seed"
