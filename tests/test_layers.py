"""Who may import whom (tools → config → train, eval, features, viz → models | data → errors), read from the source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hiera_video"
MAY_IMPORT = {
    "errors": set[str](),
    "models": {"errors", "models"},
    "data": {"errors", "data"},
    "runtime": {"errors", "runtime"},
    "viz": {"errors", "data", "models", "viz"},
    "train": {"errors", "data", "models", "runtime", "train"},
    "eval": {"errors", "data", "models", "runtime", "eval", "viz"},
    "features": {"errors", "data", "models", "runtime", "viz", "features"},
    "config": {"errors", "data", "models", "runtime", "train", "eval", "features", "viz", "config"},
}
STANDARD_LIBRARY_ALONE = ["models/layout.py", "data/clips.py", "train/schedule.py", "errors.py"]


def imported(path: Path) -> set[str]:
    """Dotted names of every import in a file, those inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if layer == "__init__":  # the public names, from everywhere
        return
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in ("tools", "hiera"), f"{path} imports {name}"
        if parts[0] == "hiera_video" and len(parts) > 1:
            assert parts[1] in MAY_IMPORT[layer], f"{layer} must not import {name}"


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ALONE)
def test_pure_modules_need_the_standard_library_alone(name: str) -> None:
    foreign = {item for item in imported(PACKAGE / name) if item.partition(".")[0] not in sys.stdlib_module_names}
    pure = {"hiera_video." + other.removesuffix(".py").replace("/", ".") for other in STANDARD_LIBRARY_ALONE}
    assert foreign <= {*pure, "hiera_video.models.geometry", "hiera_video.data.config"}, foreign


def test_pyav_is_known_to_the_decoders_and_the_encoder_alone() -> None:
    users = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if "av" in imported(path)}
    assert {user for user in users if not user.startswith("data/decode/")} == {"data/encode.py"}


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.name)
def test_tools_are_thin(path: Path) -> None:
    assert not {name for name in imported(path) if name.startswith("tools")}
    assert len(path.read_text().splitlines()) <= 120
