"""The README's Python is run, and prints what its comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_code_prints_what_its_comments_say() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    expected = re.findall(r"# ((?:torch\.Size|\[\().*)", code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected and len(expected) == 4


def test_everything_it_names_exists() -> None:
    text, root = README.read_text(), README.parent
    for link in re.findall(r"\]\(([^)h][^)]*)\)", text):
        assert (root / link).exists(), link
    for tool in set(re.findall(r"(?:tools|configs)/\w+\.(?:py|yaml)", text)):
        assert (root / tool).is_file(), tool
    for name in ("demo", "test"):
        assert f"make {name}" in text and f"\n{name}:" in (root / "Makefile").read_text()
