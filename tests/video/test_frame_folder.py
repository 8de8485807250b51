"""Folders of frames: order, naming templates, and the errors of incomplete or damaged folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hiera_video.data.config import DataConfig
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video import open_video
from hiera_video.video.options import FrameFolder


def write_pictures(
    videos: Any, folder: Path, count: int, *, name: str = "img_{:05d}.png", first: int = 1
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(videos.frame(number)).save(folder / name.format(first + number))
    return folder


def reason_of(path: Path, naming: FrameFolder | str = "frames") -> tuple[str, str]:
    with pytest.raises(DecodeError) as caught, open_video(path, naming) as video:
        video.frames(range(video.info.num_frames))
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize(
    ("name", "first"), [("img_{:05d}.png", 1), ("{:d}.png", 7), ("a1_{:03d}.PNG", 0)]
)
def test_frames_are_ordered_by_number(videos: Any, tmp_path: Path, name: str, first: int) -> None:
    folder = write_pictures(videos, tmp_path / "a", 12, name=name, first=first)
    (folder / "notes.txt").write_text("x")
    with open_video(folder, FrameFolder(fps=10)) as video:
        assert (video.info.num_frames, video.info.width, video.info.height, video.info.codec) == (
            12,
            64,
            48,
            "frames",
        )
        assert (video.fps, video.info.duration_seconds, video.times[3]) == (
            10,
            pytest.approx(1.2),
            pytest.approx(0.3),
        )
        assert videos.numbers(video.frames([11, 0, 9, 9])) == [11, 0, 9, 9]
        assert video.frames([]).shape == (0, 48, 64, 3)
        with pytest.raises(IndexError, match="frame 12 does not exist; the video has 12 frames"):
            video.frames([12])


def test_hidden_pictures_are_no_frames(videos: Any, tmp_path: Path) -> None:
    """As macOS writes them beside the others."""
    folder = write_pictures(videos, tmp_path, 3)
    for picture in sorted(folder.iterdir()):
        picture.with_name(f"._{picture.name}").write_bytes(b"metadata")
    with open_video(folder, "frames") as video:
        assert videos.numbers(video.frames([0, 1, 2])) == [0, 1, 2]


def test_two_pictures_of_one_frame_are_an_error(videos: Any, tmp_path: Path) -> None:
    folder = write_pictures(videos, tmp_path, 3, name="f_{:d}.png")
    write_pictures(videos, folder, 1, name="f_{:03d}.png")
    words = f"{folder}: contains two pictures of one frame (f_001.png, f_1.png); remove one"
    assert reason_of(folder) == ("corrupt", words)


def test_templates(videos: Any, tmp_path: Path) -> None:
    folder = write_pictures(videos, tmp_path, 6)
    write_pictures(videos, folder, 4, name="flow_x_{:05d}.png")
    words = "contains pictures of several names (flow_x_00001.png, img_00001.png); "
    assert reason_of(folder)[1].endswith(f"{words}set data.frame_template")
    for template in ("img_%05d.png", "img_{:05}.png", "img_{:05d}.png"):
        with open_video(folder, FrameFolder(template=template)) as video:
            assert video.info.num_frames == 6
    with open_video(folder, FrameFolder(template="img_%05d.png", first=3)) as video:
        assert videos.numbers(video.frames(range(4))) == [2, 3, 4, 5]


def test_incomplete_and_damaged_folders(videos: Any, tmp_path: Path) -> None:
    folder = write_pictures(videos, tmp_path / "a", 5)
    (folder / "img_00003.png").unlink()
    assert reason_of(folder) == (
        "truncated",
        f"{folder}: has no frame 3, but frames up to 5; create it again",
    )
    write_pictures(videos, folder, 5)
    assert reason_of(folder, FrameFolder(first=0))[1].endswith(
        "has no frame 0, but frames up to 5; create it again"
    )
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(folder / "img_00004.png")
    assert (
        "img_00004.png is 10x10, the first frame 64x48; all must have one size"
        in reason_of(folder)[1]
    )
    (folder / "img_00004.png").write_bytes((folder / "img_00002.png").read_bytes()[:900])
    assert (
        reason_of(folder)[0] == "corrupt"
        and "img_00004.png cannot be decoded" in reason_of(folder)[1]
    )
    (folder / "img_00001.png").write_text("not a picture")
    assert "img_00001.png cannot be decoded" in reason_of(folder)[1]
    assert reason_of(folder, FrameFolder(template="x%d.jpg"))[1].endswith(
        "contains no x%d.jpg; check data.frame_template"
    )
    assert reason_of(tmp_path / "gone") == (
        "missing",
        f"{tmp_path / 'gone'}: no such folder of frames",
    )
    path = videos.write("a.mp4", 2)
    assert (
        "not a folder of pictures, as data.decoder=frames needs; set it to pyav for videos"
        in reason_of(path)[1]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"decoder": "frames", "frame_template": "img.jpg"},
            "data.frame_template='img.jpg': must be a file name with one",
        ),
        (
            {"decoder": "frames", "frame_template": "a/%05d.jpg"},
            "must be a file name with one place for the number",
        ),
        ({"decoder": "frames", "frame_fps": 0.0}, "data.frame_fps=0.0: must be above 0"),
        ({"decoder": "frames", "frame_first": -1}, "data.frame_first=-1: must be 0 or more"),
        (
            {"frame_first": 1},
            "data.frame_template and data.frame_first need data.decoder=frames, not pyav",
        ),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        DataConfig(**options)


def test_options_reach_the_reader() -> None:
    assert DataConfig(decoder="frames", frame_first=0, frame_fps=12.0).backend == FrameFolder(
        first=0, fps=12.0
    )
    assert DataConfig(decoder="decord").backend == "decord"


def test_pictures_that_are_no_files(videos: Any, tmp_path: Path) -> None:
    """I 4.10: a FIFO hung the worker; a device, a folder."""
    folder = write_pictures(videos, tmp_path / "a", 3)
    os.mkfifo(folder / "img_00004.png")
    assert reason_of(folder) == ("not_a_file", f"{folder}: img_00004.png is not a file")
    (folder / "img_00004.png").unlink()
    (folder / "img_00004.png").mkdir()
    assert reason_of(folder)[0] == "corrupt"
    (folder / "img_00004.png").rmdir()
    (folder / "img_00004.png").symlink_to("/dev/zero")
    with_links = FrameFolder(follow_links=True)
    assert reason_of(folder, with_links) == ("not_a_file", f"{folder}: img_00004.png is not a file")


def test_a_picture_larger_than_memory(videos: Any, tmp_path: Path) -> None:
    """I 4.10: a sparse file."""
    folder = write_pictures(videos, tmp_path / "a", 1)
    with (folder / "img_00002.png").open("wb") as file:
        file.truncate(1 << 40)
    assert reason_of(folder)[0] == "too_large"


def test_pictures_that_are_links(videos: Any, tmp_path: Path) -> None:
    """I 4.4, 4.10: links may not leave the folder unless the user says so."""
    other = write_pictures(videos, tmp_path / "other", 1, first=9)
    folder = write_pictures(videos, tmp_path / "a", 2)
    (folder / "img_00003.png").symlink_to("img_00001.png")
    with open_video(folder, "frames") as video:
        assert videos.numbers(video.frames(range(3))) == [0, 1, 0]
    (folder / "img_00004.png").symlink_to(other / "img_00009.png")
    assert reason_of(folder) == (
        "permission",
        f"{folder}: img_00004.png is a link that leaves the folder; set data.follow_links=true to "
        "read such pictures",
    )
    with open_video(folder, FrameFolder(follow_links=True)) as video:
        assert videos.numbers(video.frames(range(4))) == [0, 1, 0, 0]
    (tmp_path / "link").symlink_to(folder)
    (folder / "img_00004.png").unlink()
    with open_video(tmp_path / "link", "frames") as video:
        assert len(video.times) == 3
