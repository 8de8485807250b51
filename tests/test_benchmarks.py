"""Every name that a benchmark script imports exists; no test runs all of the scripts."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.rglob("*.py"))


def imports(script: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of every `from module import name`, inside functions too."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def top_level(script: Path) -> set[str]:
    """Return the names that a script defines or imports."""
    found = set()
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef | ast.ClassDef):
                found.add(inner.name)
            elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                found.add(inner.id)
            elif isinstance(inner, ast.alias):
                found.add((inner.asname or inner.name).split(".")[0])
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(FOLDER)))
def test_imported_names_exist(script: Path) -> None:
    for module, name in imports(script):
        if module.split(".")[0] == "hiera_video":
            there = (
                hasattr(import_module(module), name)
                or importlib.util.find_spec(f"{module}.{name}") is not None
            )
            assert there, f"{script.name}: {module} has no {name}"
            continue
        sibling = FOLDER / (module.replace(".", "/") + ".py")
        if sibling.exists():
            assert name in top_level(sibling), f"{script.name}: {sibling.name} has no {name}"
