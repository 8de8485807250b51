"""Run the Python of the README and of docs/models.md, and compare what it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "page", [pytest.param("README.md", marks=pytest.mark.slow), "docs/models.md"]
)
def test_python_prints_its_comments(page: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    expected = re.findall(r"# ((?:torch\.Size|\[\(|\[').*)", code)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue().splitlines() == expected
    assert len(expected) == code.count("print(") > 0
