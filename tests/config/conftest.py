"""Configuration files of the tests, and the messages of refused ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.config.load import load_config
from hiera_video.errors import HieraVideoError

CONFIGS = Path(__file__).parents[2] / "configs"
MOTION = CONFIGS / "motion_hiera_micro.yaml"


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(HieraVideoError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(folder: Path, text: str, name: str = "x.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path
