"""Settings of the algorithms, one class each; the class of `TrainConfig.algo` chooses the algorithm."""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "ALGO_KINDS",
    "AlgoConfig",
    "C51Config",
    "DQNConfig",
    "IQNConfig",
    "MunchausenConfig",
    "PQNConfig",
    "QRConfig",
    "kind_of",
]


@dataclass(frozen=True)
class DQNConfig:
    """Deep Q-learning (Mnih et al. 2015), double if asked (van Hasselt et al. 2016)."""

    gamma: float = 0.99
    """Discount a step."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    double: bool = False
    """The online network chooses the next action, the target network values it."""
    loss: Literal["huber", "mse"] = "huber"
    """Huber with threshold 1 or squared error."""
    terminal_target: float | None = None
    """Target at an episode's end in place of the reward, a quirk of the Keras example. None: the reward."""


@dataclass(frozen=True)
class MunchausenConfig:
    """Munchausen DQN: soft Q-learning with the log-policy added to the reward (Vieillard et al. 2020)."""

    gamma: float = 0.99
    """Discount a step."""
    n_step: int = 1
    """Rewards summed before bootstrapping. The log-policy is added once, for the first action."""
    loss: Literal["huber", "mse"] = "huber"
    """Huber with threshold 1 or squared error."""
    munchausen_alpha: float = 0.9
    """How much of the scaled log-policy is added to the reward; 0: soft Q-learning."""
    munchausen_temperature: float = 0.03
    """Temperature τ of the policy, softmax(q / τ)."""
    munchausen_clip: float = -1.0
    """The scaled log-policy is clipped to this from below."""


@dataclass(frozen=True)
class C51Config:
    """Categorical distributional Q-learning (Bellemare et al. 2017)."""

    gamma: float = 0.99
    """Discount a step."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    double: bool = False
    """The online network chooses the next action, the target network gives its distribution."""
    atoms: int = 51
    """Atoms of the distribution."""
    v_min: float = -10.0
    """Return of the first atom."""
    v_max: float = 10.0
    """Return of the last atom."""


@dataclass(frozen=True)
class QRConfig:
    """Quantile-regression DQN (Dabney et al. 2018)."""

    gamma: float = 0.99
    """Discount a step."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    double: bool = False
    """The online network chooses the next action, the target network gives its quantiles."""
    quantiles: int = 200
    """Quantiles an action, at the midpoints of equal parts of 0…1."""
    kappa: float = 1.0
    """Threshold of the Huber quantile loss; 0: the plain quantile loss."""


@dataclass(frozen=True)
class IQNConfig:
    """Implicit quantile networks (Dabney et al. 2018b), with Munchausen targets if asked."""

    gamma: float = 0.99
    """Discount a step."""
    n_step: int = 1
    """Rewards summed before bootstrapping."""
    double: bool = False
    """The online network chooses the next action, the target network gives its quantiles."""
    quantiles: int = 64
    """N: fractions τ drawn for the online network."""
    target_quantiles: int = 64
    """N': fractions τ' drawn for the target network."""
    policy_quantiles: int = 32
    """K: evenly spaced fractions. An action's value is the mean over them."""
    cosines: int = 64
    """Cosines that embed a fraction."""
    kappa: float = 1.0
    """Threshold of the Huber quantile loss; 0: the plain quantile loss."""
    munchausen: bool = False
    """Add the log-policy to the reward and bootstrap from the soft value (Vieillard et al. 2020)."""
    munchausen_alpha: float = 0.9
    """How much of the scaled log-policy is added to the reward."""
    munchausen_temperature: float = 0.03
    """Temperature τ of the policy, softmax(q / τ)."""
    munchausen_clip: float = -1.0
    """The scaled log-policy is clipped to this from below."""


@dataclass(frozen=True)
class PQNConfig:
    """Parallelised Q-network: Q(λ) on fresh rollouts, no replay, no target network (Gallici et al. 2024)."""

    gamma: float = 0.99
    """Discount a step."""
    trace_decay: float = 0.65
    """λ of Q(λ): 0 bootstraps after one step, 1 only at the rollout's end."""
    rollout_steps: int = 32
    """Steps of every game between two rounds of updates."""
    epochs: int = 2
    """Passes over a rollout."""
    minibatches: int = 32
    """Updates a pass; each takes an equal part of the rollout."""
    loss: Literal["half_mse", "mse", "huber"] = "half_mse"
    """Half the squared error, the squared error, or Huber with threshold 1."""


AlgoConfig = DQNConfig | MunchausenConfig | C51Config | QRConfig | IQNConfig | PQNConfig

# names of the classes in config.json and agent cards; a user's own algorithm adds itself here
ALGO_KINDS: dict[str, type] = {
    "dqn": DQNConfig,
    "munchausen": MunchausenConfig,
    "c51": C51Config,
    "qr": QRConfig,
    "iqn": IQNConfig,
    "pqn": PQNConfig,
}


def kind_of(algo: object) -> str:
    """The name of a config's class in `ALGO_KINDS`.

    Raises:
        KeyError: the class is not there.
    """
    for kind, known in ALGO_KINDS.items():
        if type(algo) is known:
            return kind
    raise KeyError(f"{type(algo).__name__} is not in ALGO_KINDS")
