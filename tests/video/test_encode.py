"""Writer: atomic, deterministic to the byte, with options that reach the codec."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hiera_video.errors import ConfigError
from hiera_video.video.encode import write_video


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [
            (frame.pts, frame.pict_type, frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


def test_bytes_are_the_same_each_time(videos: Any) -> None:
    first, second = videos.write("a.mp4"), videos.write("b.mp4")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    "codec",
    [
        "libx264",
        pytest.param("libvpx-vp9", marks=pytest.mark.slow),
        pytest.param("mpeg4", marks=pytest.mark.slow),
    ],
)
def test_bytes_do_not_depend_on_uninitialised_memory(tmp_path: Path, codec: str) -> None:
    code = f"""
import sys, numpy as np
from hiera_video.video.encode import write_video
for clip in range(12):
    base = np.random.default_rng(clip).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    frames = [base[i : i + 40, 2 * i % 40 :][:, :40] for i in range(24)]
    write_video(f"{{sys.argv[1]}}/{{clip}}.mkv", frames, codec={codec!r})
"""
    found = set()
    for fill in ("85", "170"):  # the C library fills new memory with this byte
        folder = tmp_path / fill
        folder.mkdir()
        environment = {**os.environ, "MALLOC_PERTURB_": fill}
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment)
        found.add(tuple(path.read_bytes() for path in sorted(folder.iterdir())))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h264.mp4", {}),
        ("h264.mkv", {}),
        ("vp9.webm", {"codec": "libvpx-vp9"}),
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"qmin": "1", "qmax": "3"}}),
        ("odd.mp4", {"pixel_format": "yuv444p", "height": 47}),
    ],
)
def test_frame_numbers_survive_every_codec(videos: Any, name: str, options: dict[str, Any]) -> None:
    path = videos.write(name, 40, **options)
    assert videos.numbers(frame for _, _, frame in decoded(path)) == list(range(40))


def test_gop_and_bframes_reach_the_codec(videos: Any) -> None:
    kinds = [kind for _, kind, _ in decoded(videos.write("a.mp4", 33, gop=8, bframes=3))]
    assert [i for i, kind in enumerate(kinds) if kind == av.video.frame.PictureType.I] == [
        0,
        8,
        16,
        24,
        32,
    ]
    assert av.video.frame.PictureType.B in kinds
    plain = [kind for _, kind, _ in decoded(videos.write("b.mp4", 33, bframes=0))]
    assert av.video.frame.PictureType.B not in plain


def test_rotation_and_times_are_stored(videos: Any) -> None:
    path = videos.write("a.mp4", 3, rotation=90, times=[5.0, 5.5, 7.0])
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == [5.0, 5.5, 7.0]
    assert [frame.rotation for frame in frames] == [90] * 3


def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(videos: Any) -> None:
    path = videos.write("a.mp4", 5)
    before = path.read_bytes()

    def frames() -> Any:
        yield from videos.frames(5)
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError, match="the source failed"):
        write_video(path, frames())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "no frames to write; a video needs at least one"),
        (
            [np.zeros((4, 4), np.uint8)],
            "frame 0 is uint8 [4, 4]: write_video takes uint8 [H, W, 3]",
        ),
        (
            [np.zeros((4, 4, 3), np.float32)],
            "frame 0 is float32 [4, 4, 3]: write_video takes uint8 [H, W, 3]",
        ),
        (
            [np.zeros((16, 16, 3), np.uint8), np.zeros((16, 18, 3), np.uint8)],
            "frame 1 is [16, 18, 3], the first was [16, 16, 3]: all must have one size",
        ),
        (
            [np.zeros((15, 16, 3), np.uint8)],
            "16x15 pixels: yuv420p needs even sides; crop them or pass pixel_format",
        ),
    ],
)
def test_invalid_frames_are_refused(tmp_path: Path, frames: list[Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        write_video(tmp_path / "a.mp4", frames)
    assert not list(tmp_path.iterdir())
