"""Fixtures of the loader's tests."""

from __future__ import annotations

from typing import Any

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest


@pytest.fixture(scope="session")
def manifest(shared_videos: Any) -> Manifest:
    """Nine videos of twelve frames in four classes."""
    for i in range(9):
        shared_videos.write(f"loader/{i}.mp4", 12)
    listing = shared_videos.folder / "loader/list.csv"
    listing.write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(9)))
    return read_manifest(str(listing))
