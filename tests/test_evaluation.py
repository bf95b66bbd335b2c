import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

import pixelq.evaluation.evaluate as evaluate_module
from pixelq.agent import Agent, AgentCard
from pixelq.config import DQNConfig, EnvConfig, NetworkConfig
from pixelq.envs import EnvSpec, StepResult
from pixelq.envs.fire import fire_index
from pixelq.errors import PixelqError
from pixelq.evaluation import DEFAULT_PROTOCOL, PROTOCOLS, find_protocol
from pixelq.evaluation.evaluate import evaluate, play_quotas, quotas
from pixelq.evaluation.players import Policy, RandomAgent
from pixelq.networks import make_network

NATURE = PROTOCOLS["nature"]
MEANINGS = ("NOOP", "FIRE", "RIGHT", "LEFT")
ALL = tuple(f"A{number}" for number in range(18))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Two threads that wait for each other are slow beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class ScriptedGames:
    """Game g of environment i lasts `lengths[i]` steps and scores 100 * i + g, all of it at its last step.

    With `life_lost_at` a game has two lives and loses one at that step.
    """

    def __init__(self, lengths, *, truncate=False, life_lost_at=None):
        self.num_envs = len(lengths)
        self.spec, self.action_meanings = EnvSpec(MEANINGS), MEANINGS
        self.lengths = np.array(lengths)
        self.truncate = truncate
        self.life_lost_at = life_lost_at
        self.actions = []
        self.closed = False

    def reset(self):
        self.t = np.zeros(self.num_envs, np.int64)
        self.game = np.zeros(self.num_envs, np.int64)
        self.over = np.zeros(self.num_envs, bool)
        return self.result(np.ones(self.num_envs, bool))

    def send(self, actions):
        self.actions.append(actions.copy())

    def recv(self):
        reset = self.over
        self.game += reset
        self.t = np.where(reset, 0, self.t + 1)
        self.over = ~reset & (self.t == self.lengths)
        return self.result(reset)

    def result(self, reset):
        score = np.where(self.over, 100 * np.arange(self.num_envs) + self.game, 0)
        alive = np.ones(self.num_envs) if self.life_lost_at is None else 2 - (self.t >= self.life_lost_at)
        return StepResult(
            obs=np.zeros((self.num_envs, 4, 84, 84), np.uint8),
            reward=score.astype(np.float32),
            terminated=self.over & (not self.truncate),
            truncated=self.over & self.truncate,
            lives=np.where(self.over, 0, alive).astype(np.int32),
            reset=reset.copy(),
        )

    def close(self):
        self.closed = True


def card(game="breakout", meanings=MEANINGS, **changes):
    network = NetworkConfig(channels=(1, 1, 1), hidden=4)
    facts = AgentCard(game, meanings, False, 0.0, False, network, DQNConfig(), "custom", 0, 1)
    return dataclasses.replace(facts, **changes)


def agent(**changes):
    facts = card(**changes)
    weights = torch.Generator().manual_seed(3)
    return Agent(make_network(facts.network, len(facts.action_meanings), weights), facts)


def favourite(action, **changes):
    """An agent that always values `action` most."""
    player = agent(**changes)
    with torch.no_grad():
        player.network.head.output.weight.zero_()
        player.network.head.output.bias.zero_()
        player.network.head.output.bias[action] = 1
    return player


def policy(player=None, epsilon=0.0, seed=0):
    return Policy(player or RandomAgent("breakout"), MEANINGS, epsilon, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("name", "noops", "epsilon", "cap", "sticky", "full"),
    [
        ("nature", 30, 0.05, 18_000, 0.0, False),
        ("noop", 30, 0.01, 108_000, 0.0, False),
        ("dopamine", 0, 0.001, 108_000, 0.25, False),
        ("machado", 0, 0.001, 108_000, 0.25, True),
    ],
)
def test_protocols(name, noops, epsilon, cap, sticky, full):
    protocol = find_protocol(name)
    assert protocol.epsilon == epsilon
    expected = EnvConfig(
        sticky=sticky,
        noop_max=noops,
        max_frames_per_game=cap,
        full_action_space=full,
        fire_at_start=True,
    )
    assert protocol.env_config(full_action_space=False) == expected
    assert protocol.source


def test_the_default_is_nature_and_there_are_no_others():
    assert DEFAULT_PROTOCOL == "nature"
    assert set(PROTOCOLS) == {"nature", "noop", "dopamine", "machado", "plain"}


def test_whose_actions_count():
    assert NATURE.env_config(full_action_space=True).full_action_space
    assert not PROTOCOLS["dopamine"].env_config(full_action_space=True).full_action_space


def test_an_unknown_protocol_is_one_line():
    with pytest.raises(PixelqError) as error:
        find_protocol("natur")
    assert str(error.value) == (
        'unknown protocol "natur" (did you mean "nature"?); there are: nature, noop, dopamine, machado, plain'
    )


def test_the_line_beside_every_score():
    assert NATURE.describe("breakout", fire_assist=True) == (
        "protocol nature: cap 18,000 frames a game, up to 30 no-ops, sticky 0, ε 0.05, FIRE pressed at the start, "
        "FIRE assist after a lost life on, the agent's own actions"
    )
    assert PROTOCOLS["machado"].describe("breakout", fire_assist=False) == (
        "protocol machado: cap 108,000 frames a game, no no-ops, sticky 0.25, ε 0.001, FIRE pressed at the start, "
        "FIRE assist after a lost life off, all 18 actions"
    )
    random = NATURE.describe("breakout", fire_assist=False, random=True)
    assert "all actions random" in random
    assert "ε" not in random
    assert "catch has no" in NATURE.describe("catch", fire_assist=False)


def test_protocols_load_no_torch():
    code = "import sys, pixelq.evaluation; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("episodes", "num_envs", "expected"),
    [
        (1, None, [1]),
        (16, None, [1] * 16),
        (17, None, [2] * 8 + [1]),
        (30, None, [2] * 15),
        (100, None, [7] * 10 + [6] * 5),
        (7, 3, [3, 2, 2]),
        (2, 5, [1, 1]),
    ],
)
def test_shares(episodes, num_envs, expected):
    assert quotas(episodes, num_envs) == expected


def test_short_games_are_not_favoured():
    # "the first six to finish" would be six games of environment 0
    played = play_quotas(ScriptedGames([2, 40]), policy(), [3, 3])
    assert [[game.score for game in share] for share in played] == [[0, 1, 2], [100, 101, 102]]
    assert [[game.frames for game in share] for share in played] == [[8] * 3, [160] * 3]
    assert not any(game.truncated for share in played for game in share)


def test_progress_counts_the_games_that_count():
    said = []
    play_quotas(ScriptedGames([2, 40, 3]), policy(), [2, 1, 1], lambda done, total: said.append((done, total)))
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_result_keeps_the_order_of_environments(monkeypatch):
    games = ScriptedGames([9, 2, 5])
    monkeypatch.setattr(evaluate_module, "make_games", lambda *_: games)
    result = evaluate(RandomAgent("breakout"), NATURE, 7, num_envs=3)
    assert result.scores == (0, 1, 2, 100, 101, 200, 201)
    assert result.mean == pytest.approx(605 / 7)
    assert result.median == 100
    assert result.iqm == pytest.approx((2 + 100 + 101 + 200 + 1) / 5)
    assert result.frames == 4 * (3 * 9 + 2 * 2 + 2 * 5)
    assert (result.cut, result.past_input, result.notes()) == (0, 0, [])
    assert games.closed


def test_games_cut_by_the_cap_are_counted(monkeypatch):
    games = ScriptedGames([3, 3], truncate=True)
    monkeypatch.setattr(evaluate_module, "make_games", lambda *_: games)
    result = evaluate(RandomAgent("breakout"), NATURE, 3, num_envs=2)
    assert result.cut == 3
    assert result.notes() == ["3 of 3 games reached the cap of 18,000 frames"]


@pytest.mark.parametrize(("game", "count"), [("breakout", 1), ("pong", 0)])
@pytest.mark.slow
def test_games_that_outlive_breakouts_input_are_counted(monkeypatch, game, count):
    games = ScriptedGames([16_384, 16_383])  # 65,536 and 65,532 frames
    monkeypatch.setattr(evaluate_module, "make_games", lambda *_: games)
    result = evaluate(RandomAgent(game), PROTOCOLS["noop"], 2)
    assert result.past_input == count
    assert result.notes() == ["1 of 2 games passed 65,535 frames: input is ignored then"] * count


def test_games_are_closed_when_play_fails(monkeypatch):
    games = ScriptedGames([2])
    monkeypatch.setattr(evaluate_module, "make_games", lambda *_: games)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(RandomAgent("breakout"), NATURE, 1, progress=stop)
    assert games.closed


def test_the_json_has_exactly_the_agreed_keys():
    result = evaluate(RandomAgent("catch"), NATURE, 5, seed=4)
    document = result.to_json()
    assert list(document) == [
        "protocol",
        "game",
        "episodes",
        "mean",
        "median",
        "iqm",
        "ci95",
        "human_normalised",
        "scores",
    ]
    assert document["protocol"] == "nature"
    assert document["game"] == "catch"
    assert document["episodes"] == len(document["scores"]) == 5
    assert document["human_normalised"] is None
    assert document["ci95"] == list(result.ci95)


def test_the_same_seed_plays_the_same_games():
    first = evaluate(RandomAgent("catch"), NATURE, 20, seed=1)
    assert evaluate(RandomAgent("catch"), NATURE, 20, seed=1) == first
    assert evaluate(RandomAgent("catch"), NATURE, 20, seed=2).scores != first.scores


@pytest.mark.slow
def test_an_agent_plays_atari_the_same_way_again():
    short = dataclasses.replace(NATURE, max_frames=400)
    player = favourite(2, fire_after_life_loss=True)
    first = evaluate(player, short, 5, seed=1, num_envs=2, threads=1)
    assert first == evaluate(player, short, 5, seed=1, num_envs=2, threads=2)
    assert "FIRE assist after a lost life on" in first.settings
    assert first.human_normalised == pytest.approx((first.mean - 1.7) / 28.8)


def test_an_agent_acts_greedily_but_for_epsilon():
    obs = np.random.default_rng(0).integers(0, 256, (64, 4, 84, 84), dtype=np.uint8)
    none = np.zeros(64, bool)
    player = favourite(3)
    assert (policy(player, 0.0).act(obs, none) == 3).all()
    chooser = policy(player, 0.25)
    actions = np.concatenate([chooser.act(obs, none) for _ in range(50)])
    # a random action is the favourite one time in four
    assert np.mean(actions != 3) == pytest.approx(0.25 * 0.75, abs=0.02)


def test_chance_draws_the_same_whoever_plays():
    obs, none = np.zeros((8, 4, 84, 84), np.uint8), np.zeros(8, bool)
    greedy, random = policy(favourite(3), 0.5), policy(None, 0.5)
    for _ in range(5):
        ours, theirs = greedy.act(obs, none), random.act(obs, none)
        assert ((ours == theirs) | (ours == 3)).all()


def test_random_plays_uniformly_whatever_epsilon():
    obs, none = np.zeros((100, 4, 84, 84), np.uint8), np.zeros(100, bool)
    chooser = policy(None, 0.0)
    counts = np.bincount(np.concatenate([chooser.act(obs, none) for _ in range(100)]))
    assert counts == pytest.approx(np.full(4, 2_500), abs=200)


def test_fire_after_a_lost_life_as_in_training():
    # steps 1 and 2 lose a life at 2; the game ends with step 4, and step 5 starts the next
    for assist, pressed in ((True, 1), (False, 2)):
        games = ScriptedGames([4], life_lost_at=2)
        play_quotas(games, policy(favourite(2, fire_after_life_loss=assist)), [2])
        assert np.concatenate(games.actions).tolist() == [2, 2, pressed, 2, 2, 2, 2, pressed, 2]


def test_fire_is_found_by_its_meaning():
    assert fire_index(MEANINGS) == 1
    assert fire_index(("NOOP", "UP", "FIRE")) == 2
    assert fire_index(("NOOP", "UPFIRE", "RIGHT")) is None
    player = favourite(2, game="catch", meanings=("NOOP", "RIGHT", "LEFT"), fire_after_life_loss=True)
    chooser = Policy(player, player.action_meanings, 0.0, np.random.default_rng(0))
    assert chooser.act(np.zeros((1, 4, 84, 84), np.uint8), np.ones(1, bool)).tolist() == [2]


@pytest.mark.parametrize(
    ("player", "protocol", "says"),
    [
        (agent(), "machado", "all 18 actions: this agent of breakout has 4 actions (NOOP FIRE RIGHT LEFT)"),
        (RandomAgent("catch"), "machado", "all 18 actions: catch has 3 actions"),
        (agent(meanings=ALL, full_action_space=True), "dopamine", "plays breakout with 4 actions"),
        (agent(meanings=("NOOP", "FIRE", "LEFT", "RIGHT")), "nature", "this agent has 4 actions (NOOP FIRE LEFT"),
        (RandomAgent("brekout"), "nature", "breakout"),
    ],
)
def test_players_that_do_not_suit_the_protocol(player, protocol, says):
    with pytest.raises(PixelqError) as error:
        evaluate(player, PROTOCOLS[protocol], 1)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_chance_plays_with_all_18_actions_where_the_protocol_says():
    short = dataclasses.replace(PROTOCOLS["machado"], max_frames=40)
    assert len(evaluate(RandomAgent("breakout"), short, 2).scores) == 2


@pytest.mark.parametrize(("episodes", "seed", "says"), [(0, 1, "--episodes is 0"), (1, -1, "--seed is -1")])
def test_numbers_out_of_range(episodes, seed, says):
    with pytest.raises(PixelqError, match=says):
        evaluate(RandomAgent("catch"), NATURE, episodes, seed)


@pytest.mark.slow
def test_random_play_of_breakout_scores_about_one():
    result = evaluate(RandomAgent("breakout"), NATURE, 30)
    assert 0.5 < result.mean < 2.5
    assert result.ci95[0] < result.mean < result.ci95[1]
