"""The modules of `hiera-video prepare`, by data set."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Return a function that imports the module of a data set."""
    return lambda dataset: import_module(f"hiera_video.cli.datasets.{dataset}")
