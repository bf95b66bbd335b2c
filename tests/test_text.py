"""Text is UTF-8 by name: no locale, terminal or path decides whether training works."""

import ast
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pixelq
from pixelq.cli.main import main
from pixelq.errors import PixelqError
from pixelq.plots.numbers import plotted
from pixelq.plots.picture import draw
from pixelq.training.output import can_draw
from pixelq.training.progress import NotebookProgress, PlainProgress, RichProgress, SilentProgress, make_progress
from pixelq.training.run import train
from runs import go, metrics, quick

ROOT = Path(pixelq.__file__).parent
HOUSE = ROOT.parent.parent
SOURCES = [*ROOT.rglob("*.py"), *(HOUSE / "benchmarks").rglob("*.py"), *(HOUSE / "examples").rglob("*.py")]
READERS = {"read_text": 0, "write_text": 1}  # and how many arguments stand before the encoding
NO_FILES = {"os", "av", "webbrowser", "RunDir"}  # what is opened by them is no text
PROCESSES = {"run", "Popen", "check_output"}


def missing_encodings(tree):
    """Lines of calls that read or write text in whatever encoding the locale has."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if "encoding" in given or None in given:
            continue
        if name in PROCESSES and any(
            isinstance(given.get(word), ast.Constant) and given[word].value for word in ("text", "universal_newlines")
        ):
            yield call.lineno
        elif name in READERS:
            if len(call.args) <= READERS[name]:
                yield call.lineno
        elif name in ("open", "fdopen"):
            on = (
                function.value.id
                if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
                else ""
            )
            if on in ("os", "av", "Image", "webbrowser", "RunDir", "tarfile", "zipfile") and name == "open":
                continue
            mode = given.get("mode") or next((arg for arg in call.args if is_mode(arg)), None)
            if not (isinstance(mode, ast.Constant) and "b" in mode.value):
                yield call.lineno


def is_mode(argument):
    return (
        isinstance(argument, ast.Constant) and isinstance(argument.value, str) and set(argument.value) <= set("rwaxbt+")
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_every_text_has_its_encoding_by_name(path):
    assert list(missing_encodings(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(x)", True),
        ("path.open()", True),
        ("path.open('w')", True),
        ("path.open('rb')", False),
        ("open(x, 'wb', buffering=0)", False),
        ("open(x, encoding='utf-8')", False),
        ("os.open(x, 0)", False),
        ("path.read_text()", True),
        ("path.write_text(x)", True),
        ("path.write_text(x, 'utf-8')", False),
        ("subprocess.run(x, text=True)", True),
        ("subprocess.run(x)", False),
    ],
)
def test_the_check_finds_them(code, found):
    assert bool(list(missing_encodings(ast.parse(code)))) == found


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import pixelq
from runs import quick
print(pixelq.train(quick(total_steps=400), sys.argv[2]).step)
"""


@pytest.mark.slow
def test_training_from_a_script_whose_locale_knows_no_greek(tmp_path):
    environment = os.environ | {
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "PYTHONIOENCODING": "ascii",
    }
    run = os.fsencode(tmp_path) + b"/caf\xe9-\xff"
    command = [sys.executable, "-c", SCRIPT, Path(__file__).parent, run]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[-1] == b"400"
    assert b"return/game ?" in done.stdout
    assert metrics(Path(os.fsdecode(run)))[-1]["step"] == 400


@pytest.mark.slow
def test_a_path_that_is_no_utf8(tmp_path, capsys):
    run = tmp_path / os.fsdecode(b"r\xff")
    go(quick(total_steps=400), run)
    assert main(["eval", str(run), "--episodes", "1"]) == 0
    assert main(["plot", str(run), "--metric", "q/mean"]) == 0
    draw(plotted([run], "q/mean"), tmp_path / os.fsdecode(b"p\xff.svg"))
    assert main(["export", str(run), "--out", str(tmp_path / os.fsdecode(b"a\xff.safetensors"))]) == 0
    assert main(["eval", str(tmp_path / os.fsdecode(b"none\xff"))]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# what shows a run


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Puts a terminal in the place of standard output, in an environment as a shell has it."""
    for name in ("JPY_PARENT_PID", "PAGER", "GIT_PAGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()

    def put():
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return put


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({}, RichProgress),
        ({"TERM": "dumb"}, PlainProgress),
        ({"JPY_PARENT_PID": "7"}, PlainProgress),  # !pixelq train
        ({"TERM": "xterm-color", "PAGER": "cat", "GIT_PAGER": "cat"}, PlainProgress),
        ({"PAGER": "cat"}, RichProgress),
    ],
)
def test_a_bar_is_drawn_where_it_can_be(terminal, monkeypatch, environment, kind):
    terminal()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert type(make_progress(quick())) is kind
    assert can_draw(sys.stdout) == (kind is RichProgress)


def test_what_shows_a_run_can_be_chosen(terminal, monkeypatch):
    terminal()
    kinds = {"bar": RichProgress, "lines": PlainProgress, "none": SilentProgress}
    assert {name: type(make_progress(quick(), name)) for name in kinds} == kinds
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert type(make_progress(quick())) is PlainProgress
    with pytest.raises(PixelqError, match='progress is "dots": must be auto, bar, lines or none'):
        make_progress(quick(), "dots")
    show = make_progress(quick(), "lines")
    assert make_progress(quick(), show) is show


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lines", "none", "bar"])
def test_every_kind_follows_a_run(terminal, tmp_path, kind):
    stream = terminal()
    assert train(quick(total_steps=400), tmp_path / "run", progress=kind).step == 400
    shown = stream.getvalue()
    assert ("step 400 (100.0%)" in shown) == (kind == "lines")
    assert ("\x1b[" in shown) == (kind == "bar")
    assert bool(shown) == (kind != "none")


def test_a_notebook_gets_a_bar_of_html(tmp_path, monkeypatch):
    display = pytest.importorskip("IPython.display")
    import IPython

    class Kernel:
        kernel = True

    class Handle:
        def update(self, page):
            pages.append(page)

    def show(page, display_id):
        pages.append(page)
        return Handle()

    pages = []
    monkeypatch.setattr(IPython, "get_ipython", Kernel)
    monkeypatch.setattr(display, "display", show)
    assert isinstance(make_progress(quick(), "auto"), NotebookProgress)
    assert train(quick(total_steps=400), tmp_path / "run").step == 400
    assert '<progress value="400" max="400">' in pages[-1].data
    assert re.search("steps/s <b>[0-9]+</b>", pages[-1].data)
