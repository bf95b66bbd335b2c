"""Tables of the pages about results, each made from rows under `results/`."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from statistics import median

import numpy as np

from pixelq.presets import PRESETS
from result_cells import NONE, between, number, processor, table
from result_data import FOLDER, Curve, chain, curves, first_above, read
from result_family import family, family_rows
from result_games import STUDY, THREE_STEPS, WHOLE, training_returns
from result_own import other_games

__all__ = ["TABLES"]

_SCORES = (40, 100, 400, 800)
_FIRST = 500_000  # steps that precisions are compared over
_ON_ANOTHER_PAGE = ("fast", "keras-example", "nature-dqn", "cleanrl-dqn")
_ONE_A_PAGE = tuple(name for name in PRESETS if name not in _ON_ANOTHER_PAGE)  # presets with a page of their own


def _atari_scores() -> list[dict[str, str]]:
    """Evaluations on Atari games; the protocol of all others is `plain`."""
    return [row for row in read("scores") if row["protocol"] != "plain"]


def _minutes(found: Sequence[float | None]) -> str:
    """Median and worst of the seeds that came there, in minutes."""
    return _spread(found, lambda seconds: f"{seconds / 60:.1f}")


def _spread(found: Sequence[float | None], shown: Callable[[float], str]) -> str:
    """Median and worst of the seeds that came there."""
    there = sorted(value for value in found if value is not None)
    if not there:
        return NONE
    if len(found) == 1:
        return shown(there[0])
    missing = len(found) - len(there)
    worst = f"{missing} of {len(found)} seeds not" if missing else shown(there[-1])
    return f"**{shown(median(there))}** ({worst})"


def _found(runs: Sequence[Curve], score: float, steps: int) -> list[float | None]:
    """When each run came there, in seconds; without those that were stopped before, which say nothing."""
    found = [(first_above(run, score), run["step"][-1]) for run in runs]
    return [seconds for seconds, end in found if seconds is not None or end >= steps]


def _leaders(*, short: bool = False) -> list[list[str]]:
    rows = []
    for row in read("leaderboard"):
        if short and not row["short"]:
            continue
        runs = [chain(row["study"], name) for name in row["runs"].split()]
        to = [_minutes(_found(runs, score, int(row["steps"]))) for score in _SCORES]
        rows.append([row["who"], *to, str(len(runs)), number(row["steps"]), row["machine"], row["commit"]])
    return rows


def _estimate() -> list[str]:
    """The notebook's way on the same cores: its steps/s there, and the steps that its recipe takes here."""
    speed = next(r for r in read("peers-speed") if "Keras example" in r["system"] and r["commit"] == "cee7aa9")
    steps = first_above(curves("keras-example")["cpu-s1"], 40, "step") or 0
    minutes = steps / float(speed["median"]) / 60
    who = f"the Keras notebook, estimated: {number(steps)} steps at {float(speed['median']):.1f} a second"
    return [who, f"≈ {minutes:.0f}", NONE, NONE, NONE, NONE, NONE, processor(speed["machine"]), "–"]


def leaderboard() -> str:
    """Minutes of training to a mean return of the last 100 training games."""
    rows = [*_leaders(), _estimate()]
    for row in read("published"):
        to = [f"≈ {row[f'to_{score}']}" if row[f"to_{score}"] else NONE for score in _SCORES]
        rows.append([row["who"], *to, NONE, number(row["steps"]), row["machine"], row["source"]])
    head = ["agent", *(f"to {score}" for score in _SCORES), "seeds", "steps", "machine", "commit or source"]
    return table(head, rows)


def short_leaderboard() -> str:
    """The leaderboard for the README: rows that are marked short, and what others published."""
    rows = [[*row[:6], *row[7:]] for row in [*_leaders(short=True), _estimate()]]
    for row in read("published"):
        if row["to_40"]:
            rows.append([row["who"], f"≈ {row['to_40']}", *[NONE] * 4, row["machine"], "published"])
    return table(["agent", *map(str, _SCORES), "seeds", "machine", "commit"], rows)


def breakout_seeds(study: str, *, together: bool = False) -> Callable[[], str]:
    """Each seed of the default recipe on Breakout: minutes and steps to 40 a game; together: of all, in a last row."""

    def rows() -> str:
        cells, all_minutes, all_steps = [], list[float | None](), list[float | None]()
        for row in read("runs"):
            if (row["study"], row["game"]) != (study, "breakout"):
                continue
            curve = curves(study)[row["run"]]
            minutes, steps = first_above(curve, 40), first_above(curve, 40, "step")
            all_minutes.append(minutes)
            all_steps.append(steps)
            to = [f"{minutes / 60:.1f}" if minutes else NONE, number(steps) if steps else NONE]
            end = [number(curve["step"][-1]), f"{curve['seconds'][-1] / 60:.1f}"]
            end.append(f"{curve['return_per_game'][-1]:.1f}")
            cells.append([row["run"], *to, *end, row["machine"], row["commit"]])
        if together:
            cells.append(["median (worst)", _minutes(all_minutes), _spread(all_steps, number), *[NONE] * 5])
        head = ["run", "minutes to 40", "steps to 40", "steps", "minutes", "return at the end", "machine", "commit"]
        return table(head, cells)

    return rows


def scores() -> str:
    """Scores of all agents on Breakout."""
    rows = []
    for row in _atari_scores():
        if row["game"] != "breakout":
            continue
        cells = [number(row["steps"]), f"`{row['protocol']}`", row["episodes"]]
        cells += [f"**{number(row['mean'])}**", between(row["low"], row["high"])]
        cells += [number(row[name]) for name in ("median", "iqm", "human_normalised")]
        rows.append([_agent(row), *cells, row["machine"] or NONE, row["commit"]])
    head = ["agent", "steps", "protocol", "games", "mean", "95% interval", "median", "IQM", "human-normalised"]
    return table([*head, "machine", "commit"], rows)


def _agent(row: dict[str, str]) -> str:
    name = f"{row['agent']}, seed {row['seed']}" if row["preset"] == "fast" else row["agent"]
    return name if row["eval_seed"] == "1" else f"{name}, `eval --seed {row['eval_seed']}`"


def fast_scores() -> str:
    """Scores of the default recipe's seeds."""
    rows = []
    for row in _atari_scores():
        if row["preset"] == "fast":
            cells = [f"`{row['agent']}`", row["game"], row["seed"], number(row["steps"]), f"**{number(row['mean'])}**"]
            rows.append([*cells, between(row["low"], row["high"]), row["machine"], row["commit"]])
    head = ["preset", "game", "seed", "steps", "mean of 100 games", "95% interval", "machine", "commit"]
    return table(head, rows)


def recipe(*names: str) -> Callable[[], str]:
    """What was run with presets of one page, and what was not, with the reason."""

    def rows() -> str:
        found = []
        for name in names:
            found += [_played(name, row) for row in _atari_scores() if row["preset"] == name]
            found += family_rows(name)
            found += [_not_played(name)] if PRESETS[name].config.total_steps > _longest(name) else []
            found.append(_caught(name))
        head = ["preset", "game", "steps", "protocol, games", "mean", "95% interval", "machine", "commit"]
        return table(head, found)

    return rows


def _played(name: str, row: dict[str, str]) -> list[str]:
    agent = _agent(row) if row["agent"].startswith(name) else f"{_agent(row)}, which ships"
    cells = [agent, row["game"], number(row["steps"]), f"`{row['protocol']}`, {row['episodes']}"]
    return [
        *cells,
        f"**{number(row['mean'])}**",
        between(row["low"], row["high"]),
        row["machine"] or NONE,
        row["commit"],
    ]


def _longest(name: str) -> float:
    return max((float(row["steps"]) for row in _atari_scores() if row["preset"] == name), default=0.0)


def _not_played(name: str) -> list[str]:
    """The whole length of a recipe, not run: what it would take at its measured speed."""
    steps, speed = PRESETS[name].config.total_steps, next(r for r in read("presets-speed") if r["preset"] == name)
    hours = steps / float(speed["steps_per_second"]) / 3600
    why = f"not run: about {number(f'{hours:.0f}')} hours a seed, at {number(speed['steps_per_second'])} steps/s"
    return [name, "breakout", number(str(steps)), NONE, why, NONE, processor(speed["machine"]), NONE]


def _caught(name: str) -> list[str]:
    """Catch: a preset cut down in size and schedule, three seeds."""
    chosen = [row for row in read("catch") if row["preset"] == name]
    steps, balls = (" · ".join(number(row[key]) for row in chosen) for key in ("steps", "caught"))
    seeds = " · ".join(row["seed"] for row in chosen)
    return [f"{name}, cut down", f"Catch, seeds {seeds}", steps, "ε 0.01, 200", f"{balls} % of balls", *[NONE] * 3]


def train_session() -> str:
    """What a run of the default recipe said, as lines of its log."""
    lines, curve = ["$ pixelq train fast --threads 1"], curves(STUDY)["fast-breakout-s1"]
    for step in (50_000, 200_000, int(first_above(curve, 40, "step") or WHOLE / 2), WHOLE):
        point = int(np.searchsorted(curve["step"], step))
        at, before = ({name: float(values[i]) for name, values in curve.items()} for i in (point, point - 1))
        speed = (at["step"] - before["step"]) / (at["seconds"] - before["seconds"])
        left = timedelta(seconds=int((WHOLE - at["step"]) / speed))
        line = f"step {at['step']:,.0f} ({100 * at['step'] / WHOLE:.1f}%)  steps/s {speed:.0f}"
        line += f"  ETA {left}"
        line += f"  return/game {at['return_per_game']:.2f}  return/life {at['return_per_life']:.2f}"
        lines.append(f"{line}  ε {at['epsilon']:.3f}  loss {at['loss']:.4f}  Q {at['q_mean']:.3f}")
    return "```\n" + "\n".join(lines) + "\n```"


def epsilon_slider() -> str:
    """The ε and the return of a run of the default recipe, for a page that draws them beside other schedules of ε."""
    run, exploration = next(iter(curves("fast").values())), PRESETS["fast"].config.exploration
    steps = np.unique(np.linspace(0, run["step"][-1], 41).round()).astype(int)
    returns, epsilon = (np.interp(steps, run["step"], run[name]) for name in ("return_per_game", "epsilon"))
    known = steps >= run["step"][~np.isnan(run["return_per_game"])][0]
    data = {
        "steps": steps.tolist(),
        "returns": [round(float(value), 1) if there else None for value, there in zip(returns, known, strict=True)],
        "epsilon": [round(float(value), 3) for value in epsilon],
        "from": max(exploration.random_steps, exploration.decay_from_step),
        "decay": exploration.decay_steps,
        "end": exploration.end,
    }
    fields = "".join(f' data-{name}="{json.dumps(value).replace(" ", "")}"' for name, value in data.items())
    return f'<div class="pixelq-epsilon" data-title="ε and the return of a run"{fields}></div>'


def eval_session() -> str:
    """What an evaluation of the agent that ships printed."""
    return "```\n" + (FOLDER / "sessions" / "eval.txt").read_text("utf-8") + "```"


def games() -> str:
    """Scores by game."""
    played = dict.fromkeys(row["game"] for row in _atari_scores())
    rows = []
    for game in played:
        chosen = [row for row in _atari_scores() if row["game"] == game and row["protocol"] == "nature"]
        shipped = [row for row in chosen if row["agent"] == game]
        best = max(shipped or chosen, key=lambda row: float(row["mean"]))
        fast = [float(row["mean"]) for row in chosen if row["agent"] == "fast"]
        spread = number(fast[0], 1) if fast else NONE
        if len(fast) > 1:
            ends = f"{number(min(fast), 1)} – {number(max(fast), 1)}"
            spread = f"{number(median(fast), 1)} ({ends}), {len(fast)} seeds"
        rows.append([game, spread, f"`{best['agent']}`", number(best["mean"]), between(best["low"], best["high"])])
    return table(["game", "`fast`: median (worst – best)", "shipped or best agent", "mean", "95% interval"], rows)


def precisions() -> str:
    """Returns in training by precision, and what all runs of each come to."""
    points = [100_000, 200_000, 300_000, 400_000, 500_000]
    rows, means = [], {}
    for precision in ("bfloat16", "float32"):
        chosen = {name: run for name, run in curves("precision").items() if name.startswith(precision)}
        means[precision] = [_mean_return(run) for run in chosen.values()]
        for name, run in chosen.items():
            if "-decay-" in name:
                returns = [f"{np.interp(point, run['step'], run['return_per_game']):.1f}" for point in points]
                rows.append([name.replace("-decay-s", ", seed "), *returns, f"{_mean_return(run):.1f}"])
    for precision, found in means.items():
        spread = f"{np.mean(found):.1f} ({min(found):.1f} – {max(found):.1f})"
        rows.append([f"**{precision}**, {len(found)} runs of three recipes", *[""] * 5, spread])
    return table(["run", *(f"{point // 1000}k" for point in points), "mean up to 500k"], rows)


def _mean_return(run: Curve) -> float:
    return float(np.nanmean(run["return_per_game"][run["step"] <= _FIRST + 50]))


def shipped() -> str:
    """The runs of the agent that ships, one after the other."""
    rows, steps, minutes = [], 0.0, 0.0
    for row in read("runs"):
        if row["study"] == "shipped" and row["run"] != "pqn-7":
            run = curves("shipped")[row["run"]]
            steps, minutes = steps + run["step"][-1], minutes + run["seconds"][-1] / 60
            end = f"{run['return_per_game'][-1]:.1f}"
            rows.append([row["run"], number(run["step"][-1]), number(steps), f"{minutes:.0f}", end, row["commit"]])
    head = ["run", "steps", "steps so far", "minutes so far", "return at the end, ε 0.05", "commit"]
    return table(head, rows)


def peers() -> str:
    """Steps a second beside other systems."""
    rows = []
    for row in read("peers-speed"):
        cells = [row["system"], f"{number(row['median'], 0)} ({number(row['low'], 0)} – {number(row['high'], 0)})"]
        for peer in ("sb3", "keras"):
            median_, low, high = (row[f"times_{peer}_{name}"] for name in ("median", "low", "high"))
            cells.append(f"**{float(median_):.1f}** ({float(low):.1f} – {float(high):.1f})" if median_ else NONE)
        rows.append([*cells, row["machine"], row["commit"]])
    head = ["system", "steps/s: median (min – max)", "times Stable-Baselines3", "times the Keras example"]
    return table([*head, "machine", "commit"], rows)


def presets() -> str:
    """Speed of all presets."""
    keys = ("games", "batch", "steps_per_second", "update_ms", "update_gflops", "possible_gflops")
    keys += ("frames_per_second_per_core", "peak_megabytes")
    head = ("preset", "games", "batch", "steps/s", "update, ms", "GFLOP/s", "possible", "frames/s a core", "peak, MB")
    rows = [[f"`{row['preset']}`", *(number(row[key]) for key in keys)] for row in read("presets-speed")]
    return table(head, rows)


def catch() -> str:
    """Catch, by preset: three seeds."""
    rows = []
    for preset in dict.fromkeys(row["preset"] for row in read("catch")):
        chosen = [row for row in read("catch") if row["preset"] == preset]
        cells = [" · ".join(number(row[key]) for row in chosen) for key in ("steps", "caught", "cpu_seconds")]
        rows.append([f"`{preset}`", *cells])
    return table(["preset", "steps", "balls caught, %", "CPU seconds"], rows)


def plain(name: str, head: Sequence[str], *columns: str, keep: str = "") -> Callable[[], str]:
    """Columns of a table of results as they are; two joined by `–` are a range."""

    def cell(row: dict[str, str], column: str) -> str:
        low, dash, high = column.partition("–")
        return between(row[low], row[high]) if dash and row[low] else number(row[low])

    def rows() -> str:
        chosen = [row for row in read(name) if not keep or row["group"] == keep]
        return table(head, [[cell(row, column) for column in columns] for row in chosen])

    return rows


_TRIED = ("change", "seeds", *(f"at_{point}00k" for point in range(1, 6)), "verdict")
_TRIED_HEAD = ("change", "seeds", "100k", "200k", "300k", "400k", "500k", "what it did")
_SITTING = ("preset", "before_ms", "now_ms", "now_to_before", "to_keras_example", "wanted", "gflops", "possible_gflops")
_SITTING_HEAD = (
    *("preset", "before, ms", "now, ms", "now / before", "times keras-example"),
    *("wanted", "GFLOP/s", "possible"),
)

TABLES: dict[str, Callable[[], str]] = {
    "leaderboard": leaderboard,
    "short-leaderboard": short_leaderboard,
    "fast-seeds": breakout_seeds("fast"),
    "breakout-seeds": breakout_seeds(STUDY, together=True),
    "breakout-seeds-three-steps": breakout_seeds(THREE_STEPS, together=True),
    "scores": scores,
    "fast-scores": fast_scores,
    "train-session": train_session,
    "epsilon-slider": epsilon_slider,
    "eval-session": eval_session,
    "games": games,
    "training-games": lambda: table(*training_returns()),
    "training-games-three-steps": lambda: table(*training_returns(THREE_STEPS)),
    "other-games": lambda: table(*other_games()),
    "precisions": precisions,
    "shipped": shipped,
    "algorithm-dqn": recipe("keras-example", "nature-dqn", "cleanrl-dqn"),
    **{f"algorithm-{name}": recipe(name) for name in _ONE_A_PAGE},
    "peers": peers,
    "presets": presets,
    "catch": catch,
    "family": family,
    **{f"tried-{group}": plain("tried", _TRIED_HEAD, *_TRIED, keep=group) for group in "ABCDEFGHIJK"},
    "instructions": plain(
        "instructions-speed",
        ("kernels", "`fast`, steps/s", "`keras-example`, steps/s", "commit"),
        *("kernels", "fast_low–fast_high", "keras_low–keras_high", "commit"),
    ),
    "updates": plain(
        "updates-speed",
        ("preset", "FLOPs", "wanted", "two cores", "before", "now", "operations", "what is above the FLOPs"),
        *("preset", "flops_ratio", "wanted", "two_cores", "before", "now", "operations", "why"),
    ),
    **{
        f"sitting-{group.lower()}": plain("sitting-speed", _SITTING_HEAD, *_SITTING, keep=group)
        for group in ("AVX512", "AVX2")
    },
    "gpu": plain(
        "gpu",
        ("preset", "games", "steps/s", "range", "GPU", "commit", "note"),
        *("preset", "games", "steps_per_second", "low–high", "gpu", "commit", "note"),
    ),
    "gpu-update": plain(
        "gpu-update",
        ("preset", "variant", "µs an update", "µs of the host", "GPU", "commit"),
        *("preset", "variant", "low_us–high_us", "host_us", "gpu", "commit"),
    ),
    "emulator": plain(
        "emulator",
        ("machine", "games", "threads", "steps/s", "frames/s a core", "commit"),
        *("machine", "games", "threads", "steps_per_second", "frames_per_second_per_core", "commit"),
    ),
    "replay": plain(
        "replay",
        ("game", "store", "resident, MB", "sample(32), ms", "transitions added a second", "commit"),
        *("game", "store", "resident_mb", "sample_32_ms", "added_per_second", "commit"),
    ),
    "reliability": plain(
        "reliability",
        ("question", "measured", "wanted", "command", "commit"),
        *("question", "measured", "wanted", "command", "commit"),
    ),
}
