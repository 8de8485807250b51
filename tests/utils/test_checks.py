"""`require` refuses what is false, NaN comparisons included."""

from __future__ import annotations

import math

import pytest

from hiera_video.errors import ConfigError
from hiera_video.utils.checks import require


def test_require() -> None:
    require(True, "never raised")
    for value in (0.0, math.nan):
        with pytest.raises(ConfigError, match=rf"lr={value}: must be above 0"):
            require(value > 0, f"lr={value}: must be above 0")
