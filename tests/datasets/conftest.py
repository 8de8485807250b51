"""Runs a `datasets/*/prepare.py` in this process."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DATASETS = Path(__file__).parents[2] / "datasets"


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Return a function that imports the `prepare.py` of a data set."""

    def load(dataset: str) -> ModuleType:
        name = f"prepare_{dataset}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, DATASETS / dataset / "prepare.py")
            assert spec is not None and spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            sys.path.insert(0, str(DATASETS / dataset))
            try:
                spec.loader.exec_module(sys.modules[name])
            finally:
                sys.path.remove(str(DATASETS / dataset))
        return sys.modules[name]

    return load
