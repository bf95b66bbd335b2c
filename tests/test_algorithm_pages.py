"""The pages of the algorithms are true: presets, commands, options, places in the code, links."""

import ast
import dataclasses
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

import pixelq.training.run
from pixelq.cli import eval as cli_eval
from pixelq.cli.main import main
from pixelq.config import ALGO_KINDS, TrainConfig, option, validate
from pixelq.errors import PixelqError
from pixelq.presets import PRESETS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/algorithms"
INDEX = (FOLDER / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
ALGORITHMS = {name: text for name, text in PAGES.items() if name not in ("README", "add-your-own")}
DOCUMENTS = {f"algorithms/{name}.md": text for name, text in PAGES.items()}
DOCUMENTS["presets.md"] = (ROOT / "docs/presets.md").read_text()
SECTIONS = ["Idea", "Equation", "Command", "Metrics", "Results"]


def commands(text):
    """The lines of unmarked code blocks that call pixelq, as words."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("pixelq ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


README = (ROOT / "README.md").read_text()
COMMANDS = {" ".join(words): words for text in PAGES.values() for words in commands(text)}
COMMANDS |= {line: line.split() for line in re.findall(r"`pixelq (train [a-z][^`]*)`", README)}


def test_every_preset_has_a_page_and_a_row_of_the_index():
    rows = dict(re.findall(r"^\| `([\w-]+)` \| \[[\w-]+\]\(([\w-]+)\.md\) \|", INDEX, re.MULTILINE))
    assert list(rows) == list(PRESETS)
    assert set(rows.values()) == set(ALGORITHMS)
    for name, page in rows.items():
        assert name in ALGORITHMS[page], f"{page}.md does not name {name}"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_page_has_its_sections(name):
    found = [title for title in re.findall(r"^## (.*)$", PAGES[name], re.MULTILINE) if "Differences" not in title]
    assert found == SECTIONS
    assert re.search(r"^## Differences.*\n(.*\n)+1\. ", PAGES[name], re.MULTILINE)
    idea = PAGES[name].partition("## Idea\n")[2].partition("\n\n")[0]
    assert 4 <= len(idea.splitlines()) <= 7


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_page_tells_how_to_train_and_what_fills_its_table(name):
    verbs = [words[0] for words in commands(PAGES[name])]
    assert verbs[-2:] == ["train", "eval"]
    presets = {words[1] for words in commands(PAGES[name]) if words[0] == "train"}
    assert presets <= set(PRESETS)
    assert len([words for words in commands(PAGES[name]) if words[0] == "train"]) >= 3


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_page_has_results_or_says_why_not_and_what_would_fill_them(name):
    results = PAGES[name].partition("\n## Results\n")[2]
    rows = [line for line in results.splitlines() if line.startswith("| ") and not line.startswith("| ---")][1:]
    trained = {words[1] for words in commands(results) if words[0] == "train"}
    presets = re.findall(rf"^\| `([\w-]+)` \| \[[\w-]+\]\({name}\.md\) \|", INDEX, re.MULTILINE)
    assert presets
    for preset in presets:
        of_it = [row for row in rows if re.match(rf"\| `?{preset}\b", row)]
        measured = [row for row in of_it if re.search(r"\| \*\*[\d.]+\*\* \|", row)]
        reasons = [row for row in of_it if re.search(r"\| not run: about \d+ hours", row)]
        assert measured or reasons, preset
        assert not reasons or preset in trained, preset


def test_presets_md_names_every_preset():
    missing = [name for name in PRESETS if not re.search(rf"\b{name}\b", DOCUMENTS["presets.md"])]
    assert missing == []


def test_presets_md_tells_in_which_parts_each_of_the_family_departs_from_nature_dqn():
    parts = ("algo", "network", "optimiser", "replay", "exploration", "target_period_steps")
    base = PRESETS["nature-dqn"].config
    rows = [line for line in DOCUMENTS["presets.md"].splitlines() if line.startswith("| [")]
    assert len(rows) == 10
    for row in rows:
        link, _, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        config = PRESETS[re.match(r"\[([\w-]+)\]", link).group(1)].config
        assert [bool(cell) for cell in cells] == [getattr(config, part) != getattr(base, part) for part in parts], link
        same = {part: getattr(base, part) for part in (*parts, "preset")}
        assert dataclasses.replace(config, **same) == base


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_is_understood(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    def train(config, run_dir, init, progress, *, or_resume, callbacks, actors):
        assert actors is None
        validate(config)
        seen.append(config.preset)
        return SimpleNamespace(interrupted=False)

    def open_play(play):
        seen.append(play.agent)
        raise PixelqError("understood")

    monkeypatch.setattr(pixelq.training.run, "train", train)
    monkeypatch.setattr(cli_eval, "open_play", open_play)
    if words[0] == "eval":
        (tmp_path / words[1] / "checkpoints").mkdir(parents=True)
    status = main(words)
    assert seen == [words[1]]
    assert status == {"train": 0, "eval": 2}[words[0]]


def options():
    """Every option of `pixelq train`."""
    named = {"--run", "--init", "--help"}

    def walk(kind, prefix=""):
        for field in dataclasses.fields(kind):
            path = f"{prefix}{field.name}"
            if field.name == "algo":
                for settings in ALGO_KINDS.values():
                    walk(settings, "algo.")
            elif dataclasses.is_dataclass(field.type):
                walk(field.type, f"{path}.")
            else:
                named.add(option(path))
                if field.type is bool:
                    head, dot, last = path.rpartition(".")
                    named.add(option(f"{head}{dot}no-{last}"))

    walk(TrainConfig)
    return named


OPTIONS = options()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_options_in_backticks_exist(name):
    given = re.findall(r"`(--[^\s`]+)(?:\s[^`]*)?`", DOCUMENTS[name])
    assert [word for word in given if word not in OPTIONS] == []


def defined(path):
    """Names that a module defines, methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_places_in_the_code_exist(name):
    places = re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", DOCUMENTS[name])
    for file, what in places:
        if file in ("dqn_atari.py", "pqn_atari.py"):  # other people's
            continue
        path = ROOT / file if file.startswith("tests/") else ROOT / "src/pixelq" / file
        assert path.exists(), f"{name}: there is no {file}"
        assert not what or what in defined(path), f"{name}: {file} has no {what}"


def anchors(text):
    """What a heading can be linked by."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", DOCUMENTS[name]):
        file, _, anchor = target.partition("#")
        path = (ROOT / "docs" / name).parent / file if file else ROOT / "docs" / name
        assert path.exists(), f"{name} links to {target}"
        assert not anchor or anchor in anchors(path.read_text()), f"{name} links to {target}"


def test_the_checks_notice_what_they_check():
    assert {"--algo.double", "--algo.no-double", "--env.no-life-loss-terminal", "--seed"} <= OPTIONS
    assert "--algo.nothing" not in OPTIONS
    assert "LinearHead.forward" in defined(ROOT / "src/pixelq/networks/heads.py")
    assert anchors("# A b\n```\n# no\n```\n## Metrics of every run: one, two\n") == {
        "a-b",
        "metrics-of-every-run-one-two",
    }
    assert len(COMMANDS) > 40
