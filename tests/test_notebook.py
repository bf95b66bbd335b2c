"""The tutorial notebook: its saved outputs are whole, and it runs, learns what it says and writes nowhere else."""

import json
import re
import runpy
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from pixelq.shipped import shipped_agents

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "deep_q_breakout.ipynb"
SILENT = {"install", "imports", "update-code", "loop-code"}  # cells that only define, or find all done
SAME_EVERYWHERE = ("make-breakout", "check-plane", "epsilon-greedy", "fill-memory", "loss-by-hand")
ABSOLUTE = re.compile(r"(?<![\w.])(/(home|root|tmp|work|Users|var|usr|opt|mnt|private)/|[A-Z]:\\)")

WATCH_WRITES = """
import os, sys

started_in, written = os.getcwd(), []

def watch(event, args):
    if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(args[0])
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"):
        written.extend(path for path in args[:2] if isinstance(path, str | bytes | os.PathLike))

sys.addaudithook(watch)
"""
FACTS = """
facts = {
    "losses": [float(loss) for loss in np.concatenate([learned[:, 1], breakout_learned[:, 1]])],
    "values": [float(value) for value in np.concatenate([learned[:, 2], breakout_learned[:, 2]])],
    "caught": caught_share, "chance": chance_share, "games": len(scores), "first": first.step,
    "written": sorted({os.path.realpath(os.path.join(started_in, os.fsdecode(path))) for path in written}),
}
print(json.dumps(facts))
"""
SHIP = """
import pixelq.shipped

pixelq.shipped.SHIPPED_FOLDER = work / "{folder}"
pixelq.shipped.SHIPPED_FOLDER.mkdir()
for name in {names}:
    weights = sorted(run.glob("checkpoints/step-*/agent.safetensors"))[-1]
    shutil.copyfile(weights, pixelq.shipped.SHIPPED_FOLDER / f"{{name}}.safetensors")
"""


@pytest.fixture(name="page")
def _page():
    return nbformat.read(NOTEBOOK, as_version=4)


def code(page):
    return [cell for cell in page.cells if cell.cell_type == "code"]


def source(page, cell_id):
    return next(cell.source for cell in page.cells if cell.id == cell_id)


def said(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def outputs(page):
    return [output for cell in code(page) for output in cell.outputs]


def test_the_saved_outputs_are_those_of_one_run_from_top_to_bottom(page):
    nbformat.validate(page)
    cells = code(page)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {cell.id for cell in cells if not cell.outputs} == SILENT
    assert "error" not in {output.output_type for output in outputs(page)}
    assert "stderr" not in {output.get("name") for output in outputs(page)}
    assert all(not cell.metadata for cell in cells)  # no clock, no editor's marks


def test_the_saved_outputs_hold_pictures_and_videos_and_are_small(page):
    data = [output.data for output in outputs(page) if "data" in output]
    assert sum("image/png" in kinds for kinds in data) == 8
    assert sum("data:video/mp4;base64," in kinds.get("text/html", "") for kinds in data) == 2
    assert NOTEBOOK.stat().st_size < 1_500_000


def test_nothing_in_it_names_a_place_on_the_machine_that_ran_it(page):
    texts = [cell.source for cell in page.cells] + [said(cell) for cell in code(page)]
    texts += [output.data.get("text/plain", "") for output in outputs(page) if "data" in output]
    found = [text for text in texts if ABSOLUTE.search(text)]
    assert found == []
    assert ABSOLUTE.search("in /home/me/x")
    assert not ABSOLUTE.search("docs/home/x ../tmp/y")


def test_the_saved_outputs_know_of_the_agents_that_come_with_pixelq(page):
    told = said(next(cell for cell in page.cells if cell.id == "shipped"))
    assert told.startswith("No agent") == (not shipped_agents()), "run: make notebook"


def test_the_links_lead_somewhere(page):
    text = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert [link for link in links if not (EXAMPLES / link).exists()] == []
    files = re.findall(r"`((?:src|docs|tests)/[^`]*)`", text)
    assert files
    assert [file for file in files if not (EXAMPLES.parent / file).exists()] == []


def test_on_a_hosted_machine_it_installs_from_what_there_is(page, tmp_path, monkeypatch):
    urls = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    if repository := urls.get("Repository"):
        assert repository in source(page, "install")
        assert "https://colab.research.google.com/github/" in source(page, "hosted")
    else:
        assert "on no package index yet" in source(page, "hosted")
    ran = []
    monkeypatch.setattr("subprocess.run", lambda words, check: ran.append(words[-1]))
    monkeypatch.chdir(tmp_path)
    exec(source(page, "install"), {})
    assert ran == []  # pixelq is there
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="bring a checkout into the folder pixelq"):
        exec(source(page, "install"), {})
    (tmp_path / "pixelq/src/pixelq").mkdir(parents=True)
    exec(source(page, "install"), {})
    assert ran == ["pixelq"]


@pytest.mark.slow
def test_it_runs_and_learns_and_writes_nowhere_else(page, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in EXAMPLES.rglob("*")}
    saved = {name: said(next(cell for cell in page.cells if cell.id == name)) for name in SAME_EVERYWHERE}
    choose = source(page, "shipped")
    page.cells.insert(0, new_code_cell(WATCH_WRITES))
    page.cells += [new_code_cell(FACTS)]
    page.cells += [new_code_cell(SHIP.format(folder="none", names=[])), new_code_cell(choose)]
    page.cells += [new_code_cell(SHIP.format(folder="two", names=["asterix", "breakout"])), new_code_cell(choose)]
    execute = runpy.run_path(str(EXAMPLES / "execute_notebook.py"))["execute"]

    execute(page, tmp_path)

    assert {output.output_type for output in outputs(page)} <= {"stream", "display_data", "execute_result"}
    assert {name: said(next(cell for cell in page.cells if cell.id == name)) for name in SAME_EVERYWHERE} == saved
    facts = json.loads(said(page.cells[-5]))
    assert len(facts["losses"]) == 2_902 + 402  # (12,000 − 400) / 4 + 2 and (2,000 − 400) / 4 + 2
    assert all(0 <= loss < 10 for loss in facts["losses"])  # NaN is neither
    assert all(-10 < value < 20 for value in facts["values"])
    assert facts["chance"] < 0.3
    assert facts["caught"] > 0.6
    assert facts["games"] > 100
    assert facts["first"] == 1_000
    outside = [path for path in facts["written"] if not path.startswith((str(tmp_path.resolve()), "/dev/"))]
    assert outside == []
    assert any(path.endswith("first/config.json") for path in facts["written"])  # it would have been noticed
    assert {path: path.stat().st_mtime_ns for path in EXAMPLES.rglob("*")} == before
    assert said(page.cells[-3]).startswith("No agent comes with this pixelq")
    assert "on stage: breakout" in said(page.cells[-1])
