"""The project's rules that a program can check: layers, `__all__`, lengths of files and functions, annotations."""

import ast
import importlib
from itertools import pairwise
from pathlib import Path

import pytest

import pixelq

ROOT = Path(pixelq.__file__).parent

LAYERS = (
    ("errors", "types", "schedules", "returns", "losses", "cache", "system", "extras", "children", "memory"),
    ("native",),
    ("config", "presets", "games", "shipped", "hub"),
    ("networks", "envs", "replay", "rollouts", "run", "device", "graphs"),
    ("algos", "clipping", "divergence", "health", "optimisers", "learner"),
    ("engines",),
    ("actor", "evaluation", "agent", "interop"),
    ("training",),
    ("distributed",),
    ("viewer", "bench", "plots", "sweeps", "trackers"),
    ("reports",),
    ("tuning",),
    ("cli",),
    ("__main__",),
)
LAYER = {part: layer for layer, parts in enumerate(LAYERS) for part in parts}
# parts that may import a folder of their own layer
FOLDERS_TOGETHER = {("learner", "algos"), ("presets", "config"), ("returns", "losses")}
LONGEST_FILE = 400  # lines
LONGEST_FUNCTION = 40  # lines, nine functions in ten
ONLY_IN = {  # libraries and the parts that may import them
    "ray": {"distributed"},
    "optuna": {"tuning"},
    "keras": set(),
    "matplotlib": {"plots"},
    "starlette": {"viewer"},
    "uvicorn": {"viewer"},
    "wandb": {"trackers"},
    "mlflow": {"trackers"},
    "trackio": {"trackers"},
    "huggingface_hub": {"hub"},
    "minari": {"evaluation"},
    "onnx": {"interop"},
    "onnxruntime": {"networks"},
}
LIGHT = ("errors", "games", "presets", "shipped", "hub", "config", "schedules", "__init__", "__main__")  # load no torch
# names that others may import from engines, and parts that only engines may import
ENGINES_DOOR = {"Acting", "Engine", "make_engine", "machine_notes", "quick_precision", "samples_on_device"}
KERNELS_OF_UPDATES = {f"pixelq.native.{name}" for name in ("layers", "moves", "q_learning")}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "base"}

MODULES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def part_of(path):
    """`learner` of learner.py, `envs` of envs/atari.py."""
    return path.split("/")[0].removesuffix(".py")


def imported(path, tree):
    """The parts of pixelq a module imports anywhere, and the other libraries."""
    parts, libraries = set(), set()
    package = ["pixelq", *path.split("/")[:-1]]
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, node.module] if node.module else start)
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "pixelq" else [module]
        for name in names:
            top, _, rest = name.partition(".")
            if top != "pixelq":
                libraries.add(top)
            elif rest and not rest.startswith("__"):
                parts.add(rest.split(".")[0])
    return parts, libraries


def is_folder(part):
    return (ROOT / part).is_dir()


def test_every_part_has_a_layer():
    known = set(LAYER) | {"__init__"}
    assert {part_of(path) for path in MODULES} <= known, "give new parts a place in LAYERS and in docs/design.md"


@pytest.mark.parametrize("path", [path for path in MODULES if path != "__init__.py"])
def test_layers_hold(path):
    part = part_of(path)
    for other in imported(path, MODULES[path])[0] - {part}:
        assert other in LAYER, f"{path} imports {other}, which has no layer"
        assert LAYER[other] <= LAYER[part], f"{path} (layer {LAYER[part]}) imports {other} (layer {LAYER[other]})"
        if LAYER[other] == LAYER[part] and is_folder(other):
            assert (part, other) in FOLDERS_TOGETHER, f"{path} imports {other}, a folder of its own layer"


def test_parts_of_one_layer_do_not_import_each_other_in_circles():
    edges = {part: set() for part in LAYER}
    for path, tree in MODULES.items():
        part = part_of(path)
        if part in edges:
            edges[part] |= {other for other in imported(path, tree)[0] - {part} if other in edges}
    while edges:
        free = [part for part, others in edges.items() if not others & set(edges)]
        assert free, f"these import each other in a circle: {sorted(edges)}"
        for part in free:
            del edges[part]


@pytest.mark.parametrize("path", MODULES)
def test_libraries_stay_where_they_belong(path):
    part, (_, libraries) = part_of(path), imported(path, MODULES[path])
    for library, parts in ONLY_IN.items():
        assert library not in libraries or part in parts
    if part == "losses":
        assert libraries <= {"torch", "math", "collections", "typing"}
    if part in LIGHT:
        assert "torch" not in libraries


def test_nobody_asks_which_engine_it_is():
    """Who uses an engine gets it from `make_engine`, and knows no kind of it; kernels of updates are engines' own."""
    for path, tree in MODULES.items():
        if part_of(path) in ("engines", "native"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pixelq"):
                if node.module.startswith("pixelq.engines"):
                    assert node.module == "pixelq.engines", f"{path} imports {node.module}"
                    names = {alias.name for alias in node.names}
                    assert names <= ENGINES_DOOR, f"{path} imports {sorted(names - ENGINES_DOOR)} from pixelq.engines"
                names = {alias.name for alias in node.names} - {"OptimiserStep"}  # what a step does, in numbers
                assert not names or node.module not in KERNELS_OF_UPDATES, f"{path} imports {node.module}"


def has_code(tree):
    """Whether there is more than a docstring."""
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in tree.body)


def assigned(node):
    """Names a top-level statement binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    if isinstance(node, ast.AnnAssign):
        return {node.target.id} if isinstance(node.target, ast.Name) else set()
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.If | ast.Try):
        return set().union(*(assigned(child) for child in ast.walk(node) if child is not node))
    return set()


def declared(tree):
    """The literal `__all__` of a module, None without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", None) == "__all__" for t in node.targets):
            return ast.literal_eval(node.value)
    return None


@pytest.mark.parametrize("path", [path for path, tree in MODULES.items() if has_code(tree) and path != "__main__.py"])
def test_all_is_there_and_accurate(path):
    tree = MODULES[path]
    names = declared(tree)
    assert names is not None, f"{path} has no __all__"
    assert len(names) == len(set(names))
    bound = set().union(*(assigned(node) for node in tree.body))
    if "__getattr__" in bound:  # imports late what it offers
        module = importlib.import_module(
            ".".join(["pixelq", *path.removesuffix(".py").split("/")]).removesuffix(".__init__")
        )
        bound |= {name for name in names if hasattr(module, name)}
    assert set(names) <= bound, f"{path}: __all__ names what is not there: {sorted(set(names) - bound)}"
    defined = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    missing = {name for name in defined if not name.startswith("_")} - set(names)
    assert not missing, f"{path}: public but not in __all__: {sorted(missing)}"


def test_nobody_imports_a_private_name_of_another_module():
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pixelq"):
                private = [a.name for a in node.names if a.name.startswith("_") and not a.name.startswith("__")]
                assert not private, f"{path} imports {private} from {node.module}"


@pytest.mark.parametrize("path", MODULES)
def test_files_are_short(path):
    assert len((ROOT / path).read_text().splitlines()) <= LONGEST_FILE


def functions():
    """Every function of pixelq with its module."""
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_functions_are_short():
    lengths = sorted((node.end_lineno - node.lineno + 1, path, node.name) for path, node in functions())
    longest = lengths[int(0.9 * len(lengths))]
    assert longest[0] <= LONGEST_FUNCTION, f"more than one in ten is longer; see {lengths[-10:]}"


def test_every_argument_is_typed():
    untyped = []
    for path, node in functions():
        a = node.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        untyped += [
            f"{path}: {node.name}({arg.arg})" for arg in every if arg.arg not in ("self", "cls") and not arg.annotation
        ]
        untyped += [f"{path}: {node.name}" for _ in [0] if node.returns is None]
    assert untyped == []


def test_no_module_has_a_name_that_says_nothing():
    names = {Path(path).stem for path in MODULES} | {Path(path).parent.name for path in MODULES}
    assert not names & FORBIDDEN_NAMES
    assert "train.py" not in MODULES  # it would hide the function pixelq.train


def test_the_checks_notice_what_they_check():
    tree = ast.parse(
        "import torch\nfrom pixelq import learner\nfrom pixelq.envs.atari import AtariEnvs\nfrom . import run"
    )
    assert imported("config.py", tree) == ({"learner", "envs", "run"}, {"torch"})
    relative = ast.parse("from ..replay import ring")
    assert imported("run/rundir.py", relative)[0] == {"replay"}
    assert all(low < high for low, high in pairwise(LAYER[p] for p in ("losses", "config", "envs", "learner", "agent")))
