"""The layout of the package: what may import what, no circles, and a root that stays small."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import vtg

ROOT = Path(vtg.__file__).parent
# Each imports only from those before it, and from its own package.
ORDER = (
    *(
        "errors",
        "lazy",
        "version",
        "files",
        "timespans",
        "progress",
        "weights",
        "video",
        "clip",
        "features",
        "r2",
    ),
    *("models", "grounding", "summary", "speech", "library", "datasets", "metrics", "recipes", "evaluation"),
    *("training", "extraction", "demo", "doctor", "server", "cli", "__main__"),
)
LIGHT = ("vtg", "vtg.library.library", "vtg.models.specs", "vtg.r2.config", "vtg.cli.main", "vtg.video.sources")
HEAVY = ("av", "lancedb", "open_clip", "PIL", "pyarrow", "scipy", "torch")


def modules() -> dict[str, Path]:
    """The modules of vtg, by their dotted names."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("vtg", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of vtg that one imports, anywhere in it: in functions and for types, too."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    wanted: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            wanted += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # A module that is imported from its package needs the package as well: `import a.b as b` needs `b` alone.
            wanted += [f"{module}.{alias.name}" for alias in node.names] + [module]
    return {module for module in wanted if module in known and module != name}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports_of(name, path, known) for name, path in known.items()}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_packages_import_only_those_before_them(graph: dict[str, set[str]]) -> None:
    places = {package: place for place, package in enumerate(ORDER)}
    wrong = [
        f"{module} imports {other}"
        for module, others in graph.items()
        if module != "vtg"
        for other in sorted(others)
        if other == "vtg" or places[package_of(other)] > places[package_of(module)]
    ]
    assert wrong == []


def test_there_is_no_import_circle(graph: dict[str, set[str]]) -> None:
    state: dict[str, str] = {}

    def visit(module: str, way: list[str]) -> None:
        assert state.get(module) != "open", " → ".join([*way[way.index(module) :], module])
        if module not in state:
            state[module] = "open"
            for other in sorted(graph[module]):
                visit(other, [*way, module])
            state[module] = "done"

    for module in graph:
        visit(module, [])


def test_the_root_is_small() -> None:
    files = [path.name for path in ROOT.glob("*.py")]
    assert len(files) <= 7, files


def test_public_names_are_there() -> None:
    names = (item.name for item in pkgutil.iter_modules([str(ROOT)]) if item.name != "__main__")
    for package in [vtg, *(importlib.import_module(f"vtg.{name}") for name in names)]:
        public = getattr(package, "__all__", [])
        assert all(hasattr(package, name) for name in public), package.__name__
        assert set(public) <= set(dir(package))
        assert package.__doc__


@pytest.mark.parametrize("module", LIGHT)
def test_what_needs_no_model_imports_none(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []
