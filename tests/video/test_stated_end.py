"""The end of a video by its header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hiera_video.video.stated_end import stated_end


def test_the_end_of_a_file(videos: Any) -> None:
    assert stated_end(str(videos.write("a.mp4", 45, fps=30))) == pytest.approx(1.5, abs=0.01)
    assert stated_end(str(videos.write("a.mkv", 45, fps=30))) == pytest.approx(1.5, abs=0.05)


def test_unreadable_files_have_none(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    for name in ("text.mp4", "empty.mp4", "missing.mp4", "."):
        assert stated_end(str(tmp_path / name)) is None
