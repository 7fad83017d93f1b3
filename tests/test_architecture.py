"""The house rules, read from the source itself: floors, cycles, sizes, names, and what must not occur."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "neurenix"
FILES = sorted(SOURCE.rglob("*.py"))

# A part imports only from lower floors …
FLOORS = [
    {"_version", "errors", "registry", "packages", "tensor_files"},
    {"archives", "cuda", "devices", "memory", "storage"},
    {"backends"},
    {"nn", "metrics", "data", "vision", "audio", "text"},
    {"models"},
    {"training", "callbacks"},
    {"transfer"},
    {"demos", "report"},
    {"cli"},
]
FLOOR_OF = {part: number for number, parts in enumerate(FLOORS) for part in parts}
# … and on its own floor only so. The base of all callbacks is the contract between them and the loop.
NEIGHBOURS = {
    ("registry", "errors"),
    ("packages", "errors"),
    ("tensor_files", "errors"),
    ("archives", "storage"),
    ("vision", "data"),
    ("text", "data"),
    ("audio", "data"),
    ("callbacks", "training"),
    ("training", "callbacks._base"),
    ("demos", "report"),
}
# Imported inside the functions that use them, so that nobody waits for what they do not use …
HEAVY = {
    "accelerate",
    "datasets",
    "jsonargparse",
    "matplotlib",
    "networkx",
    "onnxruntime",
    "openvino",
    "ot",
    "pandas",
    "peft",
    "pyarrow",
    "rich",
    "sentencepiece",
    "skada",
    "sklearn",
    "soundfile",
    "timm",
    "torchmetrics",
    "torchvision",
    "transformers",
}
# … but for files that are themselves imported only by the functions that use them.
HEAVY_HERE = {"cli/_arguments.py": {"jsonargparse"}, "metrics/_accumulators.py": {"torchmetrics"}}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "base"}
# Code that runs what a file says, or may.
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "yaml.load", "joblib.load", "torch.jit.load", "os.system"}
FORBIDDEN_KEYWORDS = {("weights_only", False), ("allow_pickle", True), ("trust_remote_code", True), ("shell", True)}
TRAINER = "training/step.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    """`models/vision/resnet.py` -> `models.vision.resnet`; a package is its folder; the root is ``."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def own_imports(path: Path) -> Iterator[str]:
    """Every neurenix module that a file imports, lazily or not, as a dotted name below neurenix."""
    package = list(path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            origin = [*package[: len(package) - node.level + 1], *filter(None, (node.module or "").split("."))]
            names = [".".join(["neurenix", *origin, alias.name]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (_module_part(name) for name in names if name.split(".")[0] == "neurenix" and "." in name)


def _module_part(name: str) -> str:
    """`neurenix.data.Batch` -> `data`: the longest leading part that is a file or a folder."""
    parts = name.split(".")[1:]
    while parts and not ((SOURCE / Path(*parts)).is_dir() or (SOURCE / Path(*parts)).with_suffix(".py").is_file()):
        parts.pop()
    return ".".join(parts)


def part_of(module: str) -> str:
    return "callbacks._base" if module == "callbacks._base" else module.split(".")[0]


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, Function))


every_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 50
    assert {"data"} <= set(own_imports(SOURCE / "training" / "loop.py"))


def test_every_part_has_a_floor() -> None:
    parts = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert parts <= set(FLOOR_OF), f"give a floor to {sorted(parts - set(FLOOR_OF))}"


@every_file
def test_imports_go_down_the_floors(path: Path) -> None:
    own = part_of(module_of(path))
    if not own:
        return  # the top __init__ names the parts and imports them lazily
    own_floor = FLOOR_OF[own.split(".")[0]]
    for module in own_imports(path):
        part = part_of(module)
        if not part or part.split(".")[0] == own.split(".")[0]:
            continue  # the top __init__ for its __version__; the part itself
        lower = FLOOR_OF[part.split(".")[0]] < own_floor
        assert lower or (own.split(".")[0], part) in NEIGHBOURS, f"{own} must not import {module}"


def test_no_cycles_between_parts() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        own = part_of(module_of(path))
        graph.setdefault(own, set()).update({part_of(module) for module in own_imports(path)} - {own, ""})
    graph.pop("", None)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"cycle: {' -> '.join(error.args[1])}")


@every_file
def test_nothing_heavy_is_imported_at_module_level(path: Path) -> None:
    forbidden = HEAVY - HEAVY_HERE.get(name_of(path), set())
    for node in _at_import_time(tree_of(path)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if isinstance(node, ast.Import) or not node.level:
            assert not {module.split(".")[0] for module in modules} & forbidden, f"line {node.lineno}"


def _at_import_time(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when the file is imported: not in functions, not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and dotted(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from _at_import_time(other)
        elif not isinstance(child, Function | ast.Lambda):
            yield from _at_import_time(child)


@every_file
def test_files_are_short_and_have_a_real_name(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400
    assert path.stem.strip("_") not in NAMELESS or path == SOURCE / "callbacks" / "_base.py"


@every_file
def test_functions_are_short(path: Path) -> None:
    for function in functions(path):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        assert lines <= 40, f"{function.name} has {lines} lines below its signature and docstring"


@every_file
def test_public_names_are_documented(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), "the module has no docstring"
    for owner in (tree_of(path), *(node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef))):
        if isinstance(owner, ast.ClassDef) and owner.name.startswith("_"):
            continue
        for node in owner.body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                explained = (
                    ast.get_docstring(node) or _is_overload(node) or _is_setter(node) or node.name == "extra_repr"
                )
                assert explained, f"{node.name} in line {node.lineno}"


def _is_setter(node: ast.AST) -> bool:
    """Its getter has the docstring."""
    return any(
        isinstance(mark, ast.Attribute) and mark.attr == "setter" for mark in getattr(node, "decorator_list", ())
    )


def _is_overload(node: Function | ast.ClassDef) -> bool:
    return any(dotted(decorator).endswith("overload") for decorator in node.decorator_list)


@every_file
def test_only_the_optimizer_step_trains(path: Path) -> None:
    if name_of(path) == TRAINER:
        return
    for call in calls(path):
        if isinstance(call.func, ast.Attribute):
            assert call.func.attr != "backward", f"line {call.lineno}"
            stepped = dotted(call.func.value).lower()
            assert not (call.func.attr == "step" and "optim" in stepped), f"line {call.lineno}"


def test_the_optimizer_step_trains() -> None:
    names = {call.func.attr for call in calls(SOURCE / TRAINER) if isinstance(call.func, ast.Attribute)}
    assert {"backward", "step"} <= names


@every_file
def test_nothing_runs_what_a_file_says(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES, f"line {node.lineno}"
    for call in calls(path):
        name = dotted(call.func)
        assert name not in FORBIDDEN_CALLS and name.split(".")[0] not in FORBIDDEN_MODULES, f"line {call.lineno}"
        keywords = {(key.arg, key.value.value) for key in call.keywords if isinstance(key.value, ast.Constant)}
        assert not keywords & FORBIDDEN_KEYWORDS, f"line {call.lineno}"
        if name == "torch.load":
            assert ("weights_only", True) in keywords, f"line {call.lineno}: say weights_only=True"


# What a guest leaves alone in its host's house.
HOST = {
    "warnings.filterwarnings",
    "warnings.simplefilter",
    "logging.basicConfig",
    "torch.set_num_threads",
    "torch.set_default_dtype",
    "torch.set_default_device",
}
SEEDING = {"torch.manual_seed", "torch.default_generator.manual_seed", "torch.seed", "np.random.seed", "random.seed"}


@every_file
def test_the_host_is_left_as_it_was(path: Path) -> None:
    for call in calls(path):
        assert dotted(call.func) not in HOST, f"line {call.lineno}: {dotted(call.func)}"
        if dotted(call.func) in SEEDING:
            restores = {dotted(other.func) for other in calls(path)} & {"torch.random.fork_rng", "random.setstate"}
            assert restores, f"line {call.lineno} seeds a global generator, which nothing in this file restores"


def _registering(path: Path) -> bool:
    """Whether a file enters something in another file's registry: `@X.register(…)`, `X.add(…)`, `@metric(…)`."""
    names = {dotted(call.func) for call in calls(path)}
    registries = {name.split(".")[0] for name in names if name.endswith((".register", ".add"))}
    return "metric" in names or any(name.isupper() and name not in _defined(path) for name in registries)


def _defined(path: Path) -> set[str]:
    """Names that a file assigns at its top."""
    targets = [node.target for node in tree_of(path).body if isinstance(node, ast.AnnAssign)]
    targets += [target for node in tree_of(path).body if isinstance(node, ast.Assign) for target in node.targets]
    return {dotted(target) for target in targets}


REGISTERING = [path for path in FILES if _registering(path)]


def test_registering_files_are_found() -> None:
    found = {name_of(path) for path in REGISTERING}
    assert {"metrics/classification.py", "callbacks/early_stopping.py", "models/vision/resnet.py"} <= found


@pytest.mark.parametrize("path", REGISTERING, ids=name_of)
def test_no_registering_file_is_forgotten(path: Path) -> None:
    """Its package's __init__ imports it, and that package is imported by its own, up to the part."""
    module = module_of(path)
    if "." not in module or path.name == "__init__.py":
        return
    while "." in module:
        module_path, package = module, module.rpartition(".")[0]
        init = SOURCE / Path(*package.split(".")) / "__init__.py"
        assert module_path in set(own_imports(init)), f"{name_of(init)} does not import {module_path}"
        module = package
