"""Look-up pages equal the code, and every public name says what it is."""

import importlib
import inspect
import pkgutil
import re

import pytest

import pixelq
import reference
from runs import CLOCK, go, metrics, quick

MODULES = sorted(module.name for module in pkgutil.walk_packages(pixelq.__path__, "pixelq."))
PUBLIC = [
    (module, name)
    for module in MODULES
    if module != "pixelq.__main__"
    for name in getattr(importlib.import_module(module), "__all__", ())
]


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_as_the_code_has_it(name):
    text = (reference.FOLDER / name).read_text("utf-8")
    assert text.partition("\n")[2] == reference.PAGES[name](), "run python docs/maker/reference.py"


def test_every_verb_and_setting_has_its_place():
    commands, settings = ((reference.FOLDER / name).read_text("utf-8") for name in ("cli.md", "settings.md"))
    assert all(f"\n## {verb}\n" in commands for verb in reference.verbs())
    assert "| `--optimiser.weight-decay` | float |" in settings
    assert not re.search(r"\| +\|$", settings, re.MULTILINE), "a setting without a text"
    fields = re.findall(r"`[a-z]+_[a-z_]+`", settings)
    assert fields == [], "the help names an option as it is typed, such as `--stop-on`"


def test_metrics_are_those_of_a_run(tmp_path):
    page = (reference.FOLDER / "metrics.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `([^`]+)`", page, re.MULTILINE))
    go(quick(total_steps=400), tmp_path / "run")
    keys = {re.sub(r"^(health/(?:dead|dormant)_)\w+$", r"\1LAYER", key) for key in metrics(tmp_path / "run")[-1]}
    assert keys | set(CLOCK) == listed
    files = (reference.FOLDER / "files.md").read_text("utf-8")
    assert all(f"`{path.name}" in files for path in (tmp_path / "run").iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=[f"{module}.{name}" for module, name in PUBLIC])
def test_a_public_name_says_what_it_is(module, name):
    thing = getattr(importlib.import_module(module), name)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)) or not thing.__module__.startswith("pixelq"):
        return
    assert inspect.getdoc(thing), f"{module}.{name}"


TOP = [name for name in pixelq.__all__ if inspect.isfunction(getattr(pixelq, name))]


@pytest.mark.parametrize("name", TOP)
def test_the_api_says_what_it_takes_and_gives(name):
    function = getattr(pixelq, name)
    text = inspect.getdoc(function) or ""
    parameters = list(inspect.signature(function).parameters)
    if parameters != ["name"]:
        missing = [one for one in parameters if not re.search(rf"^    {one}(, \w+)*:|, {one}:", text, re.MULTILINE)]
        assert missing == []
    assert "Raises:" in text
