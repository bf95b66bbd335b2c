"""Reference scores (random and human), and summaries of scores with their uncertainty."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["REFERENCE", "Reference", "SeedSummary", "Summary", "human_normalised", "summarise", "summarise_seeds"]

_RESAMPLES = 10_000
_NESTED_RESAMPLES = 4_000
_RESAMPLES_AT_ONCE = 500  # bounds memory: 500 × 10,000 games are 40 MB


class Reference(NamedTuple):
    """Reference scores of a game: mean raw scores under the no-op protocol."""

    random: float
    human: float


REFERENCE: dict[str, Reference] = {
    "alien": Reference(227.8, 7127.7),
    "amidar": Reference(5.8, 1719.5),
    "assault": Reference(222.4, 742.0),
    "asterix": Reference(210.0, 8503.3),
    "asteroids": Reference(719.1, 47388.7),
    "atlantis": Reference(12850.0, 29028.1),
    "bank_heist": Reference(14.2, 753.1),
    "battle_zone": Reference(2360.0, 37187.5),
    "beam_rider": Reference(363.9, 16926.5),
    "berzerk": Reference(123.7, 2630.4),
    "bowling": Reference(23.1, 160.7),
    "boxing": Reference(0.1, 12.1),
    "breakout": Reference(1.7, 30.5),
    "centipede": Reference(2090.9, 12017.0),
    "chopper_command": Reference(811.0, 7387.8),
    "crazy_climber": Reference(10780.5, 35829.4),
    "defender": Reference(2874.5, 18688.9),
    "demon_attack": Reference(152.1, 1971.0),
    "double_dunk": Reference(-18.6, -16.4),
    "enduro": Reference(0.0, 860.5),
    "fishing_derby": Reference(-91.7, -38.7),
    "freeway": Reference(0.0, 29.6),
    "frostbite": Reference(65.2, 4334.7),
    "gopher": Reference(257.6, 2412.5),
    "gravitar": Reference(173.0, 3351.4),
    "hero": Reference(1027.0, 30826.4),
    "ice_hockey": Reference(-11.2, 0.9),
    "jamesbond": Reference(29.0, 302.8),
    "kangaroo": Reference(52.0, 3035.0),
    "krull": Reference(1598.0, 2665.5),
    "kung_fu_master": Reference(258.5, 22736.3),
    "montezuma_revenge": Reference(0.0, 4753.3),
    "ms_pacman": Reference(307.3, 6951.6),
    "name_this_game": Reference(2292.3, 8049.0),
    "phoenix": Reference(761.4, 7242.6),
    "pitfall": Reference(-229.4, 6463.7),
    "pong": Reference(-20.7, 14.6),
    "private_eye": Reference(24.9, 69571.3),
    "qbert": Reference(163.9, 13455.0),
    "riverraid": Reference(1338.5, 17118.0),
    "road_runner": Reference(11.5, 7845.0),
    "robotank": Reference(2.2, 11.9),
    "seaquest": Reference(68.4, 42054.7),
    "skiing": Reference(-17098.1, -4336.9),
    "solaris": Reference(1236.3, 12326.7),
    "space_invaders": Reference(148.0, 1668.7),
    "star_gunner": Reference(664.0, 10250.0),
    "surround": Reference(-10.0, 6.5),
    "tennis": Reference(-23.8, -8.3),
    "time_pilot": Reference(3568.0, 5229.2),
    "tutankham": Reference(11.4, 167.6),
    "up_n_down": Reference(533.4, 11693.2),
    "venture": Reference(0.0, 1187.5),
    "video_pinball": Reference(16256.9, 17667.9),  # some tables print 0 for random
    "wizard_of_wor": Reference(563.5, 4756.5),
    "yars_revenge": Reference(3092.9, 54576.9),
    "zaxxon": Reference(32.5, 9173.3),
}
"""By ROM name, the 57 games of the literature.

Source: Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement Learning", appendix, no-op
starts; the same numbers as in DQN Zoo. Mnih et al. 2015 print older ones for 49 games (Breakout's human: 31.8).
"""


class Summary(NamedTuple):
    """Summary of the scores of some games."""

    mean: float
    median: float
    iqm: float  # mean of the middle half
    ci95: tuple[float, float]  # 95% bootstrap interval of the mean


class SeedSummary(NamedTuple):
    """Summary of the scores of several agents of one recipe, each trained with another seed."""

    mean: float
    mean_ci95: tuple[float, float]
    iqm: float  # mean of the middle half of all games
    iqm_ci95: tuple[float, float]


def human_normalised(game: str, score: float) -> float | None:
    """A score on the scale where random play is 0 and the human tester 1.

    Args:
        game: ROM name.
        score: a raw score or a mean of raw scores.

    Returns:
        The normalised score, None for a game without published references.

    Source: Mnih et al. 2015, extended data table 2, there in percent.
    """
    if game not in REFERENCE:
        return None
    reference = REFERENCE[game]
    return (score - reference.random) / (reference.human - reference.random)


def summarise(scores: Sequence[float]) -> Summary:
    """Mean, median, interquartile mean and the mean's 95% bootstrap interval.

    The same scores give the same summary in any order. If all scores are s, the interval is [s, s].

    Args:
        scores: raw scores of at least one game.

    Raises:
        ValueError: there are none, or one is not a finite number.

    Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (IQM);
        Efron 1979, "Bootstrap Methods: Another Look at the Jackknife" (percentile interval).
    """
    from scipy.stats import trim_mean  # late: it takes more than a second

    values = np.sort(np.asarray(scores, np.float64))
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"scores must be finite numbers, at least one: got {list(scores)}")
    if values[0] == values[-1]:  # no rounding where every mean is the same
        same = float(values[0])
        return Summary(same, same, same, (same, same))
    generator = np.random.default_rng(0)
    means = [
        generator.choice(values, (_RESAMPLES_AT_ONCE, values.size)).mean(axis=1)
        for _ in range(_RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    return Summary(
        float(values.mean()),
        float(np.median(values)),
        float(trim_mean(values, 0.25)),
        _interval(np.concatenate(means)),
    )


def summarise_seeds(scores: Sequence[Sequence[float]]) -> SeedSummary:
    """Mean and interquartile mean of all games, with 95% bootstrap intervals over seeds and games.

    Agents are drawn with replacement, then the games of each, so the intervals include the spread between seeds. For
    a single agent, mean, interval and IQM equal `summarise`.

    Args:
        scores: raw scores of at least one agent, each with at least one game.

    Raises:
        ValueError: there are none, or one is not a finite number.

    Source: Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8 (hierarchical data);
        Agarwal et al. 2021, as for `summarise`.
    """
    if not all(scores):
        raise ValueError(f"every agent needs scores of at least one game: got {list(map(len, scores))}")
    summary = summarise([score for agent in scores for score in agent])
    if summary.ci95 == (summary.iqm, summary.iqm):  # no rounding where every mean is the same
        return SeedSummary(summary.mean, summary.ci95, summary.iqm, summary.ci95)
    agents = [np.sort(np.asarray(agent, np.float64)) for agent in scores]
    generator = np.random.default_rng(0)
    means, iqms = np.empty(_NESTED_RESAMPLES), np.empty(_NESTED_RESAMPLES)
    for sample in range(_NESTED_RESAMPLES):
        drawn = [agents[agent] for agent in generator.integers(len(agents), size=len(agents))]
        games = np.sort(np.concatenate([agent[generator.integers(agent.size, size=agent.size)] for agent in drawn]))
        cut = games.size // 4
        means[sample], iqms[sample] = games.mean(), games[cut : games.size - cut].mean()
    intervals = [summary.ci95 if len(agents) == 1 else _interval(means), _interval(iqms)]
    return SeedSummary(summary.mean, intervals[0], summary.iqm, intervals[1])


def _interval(samples: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)
