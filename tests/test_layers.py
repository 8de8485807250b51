"""The import rule (docs/architecture.md) and unique class names, read from the source."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hiera_video"
FILES = sorted(PACKAGE.rglob("*.py"))
BASE = {"errors", "utils"}
LIBRARY = {*BASE, "runtime", "viz", "models", "video", "data"}
LIBRARIES = {"train", "eval", "features", "probe", "explanations"}
MAY_IMPORT = {
    "errors": set[str](),
    "utils": {"errors"},
    "runtime": BASE,
    "viz": BASE,
    "models": BASE,
    "export": {*BASE, "models"},
    "video": BASE,
    "data": {*BASE, "video"},
    **dict.fromkeys(LIBRARIES, LIBRARY),
    "config": {*LIBRARY, *LIBRARIES},
    "workflows": {*LIBRARY, *LIBRARIES, "export", "config"},
    "app": {*LIBRARY, *LIBRARIES, "config", "workflows"},
    "cli": {*LIBRARY, *LIBRARIES, "export", "config", "workflows", "app"},
}
"""Room → rooms that it may import, besides itself."""
STANDARD_LIBRARY_ALONE = [
    "errors.py",
    "data/sampling.py",
    "models/layout.py",
    "train/schedule.py",
    "utils/checks.py",
    "video/frame_index.py",
]


def imported(path: Path) -> set[str]:
    """Return the dotted names of every import in a file, those inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):  # the public names, from everywhere; the commands
        return
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in ("tools", "hiera"), f"{path} imports {name}"
        if parts[0] == "hiera_video" and len(parts) > 1 and (PACKAGE / parts[1]).exists():
            assert parts[1] in {*MAY_IMPORT[room], room}, f"{room} must not import {name}"


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ALONE)
def test_pure_modules_need_the_standard_library_alone(name: str) -> None:
    pure = {
        "hiera_video." + other.removesuffix(".py").replace("/", ".")
        for other in STANDARD_LIBRARY_ALONE
    }
    for item in imported(PACKAGE / name):
        known = item.partition(".")[0] in sys.stdlib_module_names
        assert known or any(item == one or item.startswith(f"{one}.") for one in pure), item


def test_pyav_is_imported_by_the_video_library_alone() -> None:
    users = {path.relative_to(PACKAGE).parts[0] for path in FILES if "av" in imported(path)}
    assert users == {"video"}


def test_no_two_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
