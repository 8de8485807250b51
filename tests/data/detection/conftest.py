"""A list of boxes over two short videos, one of them with a white square."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hiera_video.data.detection.key_frame import BoxManifest
from hiera_video.data.detection.manifest import BoxListOptions, read_box_list
from hiera_video.video.encode import write_video

SQUARE = (slice(16, 32), slice(32, 48))
"""Rows and columns of the white square in frames of 64 × 96 pixels."""
LINES = """\
a.mp4,0.5,0.3333333,0.25,0.5,0.5,moves left
a.mp4,0.5,0,0,0.0833333,0.125,stays
a.mp4,0.5,0,0,0.0833333,0.125,moves right
b.mp4,0.25
b.mp4,1,0,0,1,1,stays
"""


@pytest.fixture(scope="session")
def box_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxes")
    frames = np.zeros((30, 64, 96, 3), np.uint8)
    write_video(folder / "b.mp4", frames, fps=20)
    frames[:, *SQUARE] = 255
    write_video(folder / "a.mp4", frames, fps=20)
    (folder / "labels.txt").write_text("moves left\nmoves right\nstays\n")
    (folder / "train.csv").write_text(LINES)
    return folder / "train.csv"


@pytest.fixture(scope="session")
def box_manifest(box_list: Path) -> BoxManifest:
    return read_box_list(box_list, BoxListOptions())
