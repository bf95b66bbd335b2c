"""Write the look-up pages from the code: python docs/maker/reference.py [--check]."""

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

import pixelq.errors
from pixelq.config import ALGO_KINDS, TrainConfig, option
from pixelq.evaluation.protocols import DEFAULT_PROTOCOL, PROTOCOLS
from pixelq.presets import DEFAULT_PRESET, PRESETS

__all__ = ["FOLDER", "PAGES", "main", "verbs"]

FOLDER = Path(__file__).resolve().parents[1] / "reference"
_NOTE = "<!-- written by docs/maker/reference.py -->\n"
_COMMON = 2  # values of a setting, from so many on it is in the table of presets


class _Seen(BaseException):
    """The options of a verb, instead of its work."""

    def __init__(self, kind: type, command: str, about: str, default: Any) -> None:
        super().__init__(command)
        self.kind, self.command, self.about, self.default = kind, command, about, default


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def helps(kind: type) -> dict[str, str]:
    """The text under each field of a dataclass, inherited ones too."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                assert isinstance(field.target, ast.Name)
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def shown(value: object) -> str:
    """A default, as one would type it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "–"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def kind_of_value(kind: Any) -> str:
    """A field's type in words of the command line."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(kind_of_value(part) for part in arguments if part is not types.NoneType)
    if origin is typing.Annotated:
        return kind_of_value(arguments[0])
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple:
        many = len(arguments) == 2 and arguments[1] is Ellipsis
        return f"{kind_of_value(arguments[0])} …" if many else " ".join(map(kind_of_value, arguments))
    names = {bool: "flag", int: "int", float: "float", str: "text", Path: "path"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def fields(kind: type, default: Any, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Option, type, default and text of each field that is no group of settings."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), helps(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        marks = getattr(hint, "__metadata__", ())
        given = next((mark.name for mark in marks if getattr(mark, "name", None) is not None), None)
        if dataclasses.is_dataclass(inner) and given is not None and inner is not TrainConfig:  # of the verb's own
            yield from fields(inner, None, f"{prefix}{given}." if given else prefix)
        if dataclasses.is_dataclass(inner) or inner is TrainConfig.__annotations__["algo"]:
            continue
        positional = any("Positional" in str(mark) for mark in marks)
        metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), None)
        value = getattr(default, field.name) if default is not None else field.default
        if value is dataclasses.MISSING:
            value = field.default_factory() if field.default_factory is not dataclasses.MISSING else "needed"
        name = f"`{metavar or field.name.upper()}`" if positional else f"`{option(prefix + (given or field.name))}`"
        yield name, kind_of_value(hint), shown(value), texts.get(field.name, "")


_OPTION_HEAD = ["option", "value", "default", "meaning"]


def _options(kind: type, default: Any = None, prefix: str = "") -> str:
    return table(_OPTION_HEAD, [list(row) for row in fields(kind, default, prefix)])


def verbs() -> dict[str, str]:
    """Each verb and its line of help."""
    from pixelq.cli.main import _VERBS

    return dict(_VERBS)


def _seen(module_name: str, *places: str) -> _Seen:
    """What a verb would read its options by."""

    def parse(kind: type, words: object, command: str, description: str, default: object = None) -> NoReturn:
        raise _Seen(kind, command, description, default)

    module = importlib.import_module(module_name)
    homes = [module, *map(importlib.import_module, places)]
    kept = [home.parse for home in homes if hasattr(home, "parse")]
    try:
        for home in homes:
            if hasattr(home, "parse"):
                home.parse = parse
        module.run([])
    except _Seen as seen:
        return seen
    finally:
        for home, old in zip([home for home in homes if hasattr(home, "parse")], kept, strict=True):
            home.parse = old
    raise AssertionError(f"{module_name} reads no options")


def _about(verb: str, seen: _Seen) -> str:
    """What a verb does; its usage, and the list of presets, stand elsewhere."""
    if verb == "train":
        return "Train an agent: `pixelq train [PRESET] [options]`. [Presets](../presets.md)."
    return re.sub(r"\[(.*?)\]", r"\\[\1\\]", seen.about)


def cli() -> str:
    """All verbs and their options."""
    text = "# Commands\n\n`pixelq VERB --help` shows the same.\n\n"
    rows = []
    for verb, line in verbs().items():
        what, _, usage = line.partition(": pixelq ")
        rows.append([f"[`{verb}`](#{verb})", what, f"`pixelq {usage or verb}`"])
    text += table(["verb", "what it does", "usage"], rows)
    for verb in verbs():
        text += f"\n## {verb}\n\n"
        if verb == "bench":
            for what in ("env", "replay", "learner", "train"):
                seen = _seen(f"pixelq.cli.bench.{what}", "pixelq.cli.bench.recipes")
                text += f"### bench {what}\n\n{seen.about}\n\n{_options(seen.kind, seen.default)}\n"
            continue
        seen = _seen(f"pixelq.cli.{'import_' if verb == 'import' else verb}")
        text += f"{_about(verb, seen)}\n\n"
        if rows := [list(row) for row in fields(seen.kind, seen.default)]:
            text += table(_OPTION_HEAD, rows)
        if verb in ("train", "sweep"):
            text += "\nAnd every [setting](settings.md).\n"
    return text


def settings() -> str:
    """All settings, by group, with the default preset's values."""
    config = PRESETS[DEFAULT_PRESET].config
    text = "# Settings\n\nEvery setting is an option of `pixelq train` and a field of `pixelq.config.TrainConfig`.\n"
    text += f"Defaults here are the values of the default preset, `{DEFAULT_PRESET}`.\n"
    text += "A flag is switched off by `no-`: `--algo.no-double`.\n"
    text += f"\n## The run\n\n{_options(TrainConfig, config)}"
    for group in dataclasses.fields(TrainConfig):
        value = getattr(config, group.name)
        if dataclasses.is_dataclass(value) and group.name != "algo":
            about = (type(value).__doc__ or "").strip().splitlines()[0]
            text += f"\n## {group.name}\n\n{about}\n\n{_options(type(value), value, f'{group.name}.')}"
    text += "\n## algo\n\nThe preset chooses the algorithm. Each algorithm has its own settings.\n"
    for name, kind in ALGO_KINDS.items():
        about = (kind.__doc__ or "").strip().splitlines()[0]
        text += f"\n### algo: {name}\n\n{about}\n\n{_options(kind, kind(), 'algo.')}"
    return text


def preset_values() -> str:
    """Where presets differ: a row a setting, a column a preset."""

    def walk(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if dataclasses.is_dataclass(inner):
                yield from walk(inner, f"{prefix}{field.name}.")
            else:
                yield option(prefix + field.name), shown(inner)

    values = {name: dict(walk(preset.config)) for name, preset in PRESETS.items()}
    names = dict.fromkeys(name for settings in values.values() for name in settings)
    rows = []
    for name in names:
        row = [settings.get(name, "") for settings in values.values()]
        if name != "--preset" and len(set(row)) >= _COMMON:
            rows.append([f"`{name}`", *row])
    text = (
        "# Presets, setting by setting\n\nSettings that differ between presets. An empty cell: the algorithm does not\n"
    )
    text += "have it. In words: [presets](../presets.md).\n\n"
    return text + table(["setting", *(f"`{name}`" for name in values)], rows)


def protocols() -> str:
    """The protocols of evaluation."""
    text = (
        "# Protocols\n\n`pixelq eval AGENT --protocol NAME` plays whole games under these conditions. Scores are raw.\n"
    )
    text += f"The default is `{DEFAULT_PROTOCOL}`, and `plain` for games that are not Atari's.\n\n"
    head = ["protocol", "no-ops, at most", "ε", "frame cap a game", "sticky", "actions", "source"]
    rows = []
    for one in PROTOCOLS.values():
        numbers = [str(one.noop_max), f"{one.epsilon:g}", f"{one.max_frames:,}", f"{one.sticky:g}"]
        rows.append([f"`{one.name}`", *numbers, one.actions, one.source])
    text += table(head, rows)
    text += "\n| column | meaning |\n| --- | --- |\n"
    for name, meaning in helps(type(PROTOCOLS[DEFAULT_PROTOCOL])).items():
        text += f"| {name} | {meaning} |\n"
    return text


def exit_statuses() -> str:
    """Exit statuses and the errors behind them."""
    text = "# Exit statuses\n\n"
    rows = [["0", "done"], ["1", "the run failed"], ["2", "bad input; one line says what would be right"]]
    text += table(["status", "meaning"], [*rows, ["130", "interrupted; the run was saved, if there was one"]])
    text += "\n## Errors\n\nFrom Python a user error is an exception of this family. Its text is the line.\n\n"
    family = [getattr(pixelq.errors, name) for name in pixelq.errors.__all__]
    family.sort(key=lambda kind: len(kind.__mro__))
    rows = [[f"`{kind.__name__}`", str(kind.exit_status), (kind.__doc__ or "").partition(";")[0]] for kind in family]
    return text + table(["exception", "status", "meaning"], rows)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli,
    "settings.md": settings,
    "preset-values.md": preset_values,
    "protocols.md": protocols,
    "exit-statuses.md": exit_statuses,
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` only tell which differ."""
    stale = 0
    for name, make in PAGES.items():
        path, text = FOLDER / name, _NOTE + make()
        if not path.exists() or path.read_text("utf-8") != text:
            print(path.relative_to(FOLDER.parents[1]))
            stale += 1
            if "--check" not in arguments:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, "utf-8")
    return int("--check" in arguments and stale > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
