"""Folders of frames, and the two kinds of lists that name them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hiera_video.data.config import DataConfig
from hiera_video.data.dataset import TestViews, UnreadableVideo, VideoViews
from hiera_video.data.manifest.list_file import format_line
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Label, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.errors import ConfigError, DecodeError, ManifestError
from hiera_video.video import open_video
from hiera_video.video.options import FrameFolder


def take_apart(
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
def test_frames_in_the_order_of_their_numbers(
    videos: Any, tmp_path: Path, name: str, first: int
) -> None:
    folder = take_apart(videos, tmp_path / "a", 12, name=name, first=first)
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


def test_templates(videos: Any, tmp_path: Path) -> None:
    folder = take_apart(videos, tmp_path, 6)
    take_apart(videos, folder, 4, name="flow_x_{:05d}.png")
    assert reason_of(folder)[1].endswith(
        "contains pictures of several names (flow_x_00001.png, img_00001.png); set data.frame_template"
    )
    for template in ("img_%05d.png", "img_{:05}.png", "img_{:05d}.png"):
        with open_video(folder, FrameFolder(template=template)) as video:
            assert video.info.num_frames == 6
    with open_video(folder, FrameFolder(template="img_%05d.png", first=3)) as video:
        assert videos.numbers(video.frames(range(4))) == [2, 3, 4, 5]


def test_what_is_wrong_with_a_folder(videos: Any, tmp_path: Path) -> None:
    folder = take_apart(videos, tmp_path / "a", 5)
    (folder / "img_00003.png").unlink()
    assert reason_of(folder) == (
        "truncated",
        f"{folder}: has no frame 3, but frames up to 5; create it again",
    )
    take_apart(videos, folder, 5)
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
    (folder / "img_00001.png").write_text("no picture")
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
def test_settings_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        DataConfig(**options)


def test_settings_reach_the_reader() -> None:
    assert DataConfig(decoder="frames", frame_first=0, frame_fps=12.0).backend == FrameFolder(
        first=0, fps=12.0
    )
    assert DataConfig(decoder="decord").backend == "decord"


# -- lists -------------------------------------------------------------------------------------------------------------


def test_mmaction2s_list(videos: Any, tmp_path: Path) -> None:
    for name, count in (("abseiling/a b", 12), ("zumba/c", 10), ("zumba/d", 10)):
        take_apart(videos, tmp_path / name, count)
    listing = tmp_path / "train.txt"
    listing.write_text("abseiling/a b 12 0\nzumba/c 8 1\nzumba/d 11 1\n")
    manifest = read_manifest(str(listing))
    assert [(record.label, record.num_frames) for record in manifest.records] == [
        (0, 12),
        (1, 8),
        (1, 11),
    ]
    assert manifest.records[0].path == str(tmp_path / "abseiling/a b")

    class whole:
        @staticmethod
        def views_of(frames: Any, clips: list[list[int]]) -> Any:
            import torch

            shown = torch.stack(
                [torch.from_numpy(frames[clip]).permute(3, 0, 1, 2).float() for clip in clips]
            )
            return Crops(clips=shown, boxes=((0, 0, *frames.shape[1:3]),))

    views = TestViews(
        manifest,
        ClipConfig(num_frames=4, sampling="segments"),
        whole,
        num_clips=1,
        decoder=FrameFolder(),
    )
    shown = [views[row] for row in range(3)]
    assert isinstance(shown[1], VideoViews) and isinstance(shown[2], UnreadableVideo)
    assert (
        max(videos.numbers(shown[1].views[0].permute(1, 2, 3, 0).numpy())) <= 7
    )  # the list counts, not the folder
    assert shown[2].message.endswith("zumba/d: has 10 frames, but its list says 11; make it again")


def test_pyslowfasts_list(tmp_path: Path) -> None:
    listing = tmp_path / "train.csv"
    header = "original_vido_id video_id frame_id path labels\n"
    rows = ['7 0 0 7/7_01.jpg ""\n', '7 0 1 7/7_02.jpg ""\n', '9 1 0 9/9_01.jpg "3,5"\n']
    listing.write_text(header + "".join(rows))
    records = read_manifest(str(listing)).records
    assert [(Path(r.path).name, r.label, r.num_frames) for r in records] == [
        ("7", None, 2),
        ("9", (3, 5), 1),
    ]
    for wrong, words in (
        (
            "7 0 3 7/7_04.jpg 1\n",
            r"train.csv:5: frame_id 3 of 7 follows 2 others; list frames in order",
        ),
        (
            "7 0 2 8/7_04.jpg 1\n",
            r"train.csv:5: '8/7_04.jpg' is not in the folder of the other frames of 7 \(7\)",
        ),
        ("7 0 2\n", r"train.csv:5: has 3 columns, the header 5"),
        (
            "8 2 0 8/1.jpg a\n",
            r'train.csv:5: labels a must be class indices joined by commas, like "3,7"',
        ),
        ("8 2 0 ../1.jpg 1\n", r"train.csv:5: '..' lies outside"),
    ):
        listing.write_text(header + "".join(rows) + wrong)
        with pytest.raises(ManifestError, match=words):
            read_manifest(str(listing))


def test_what_is_no_list_of_folders(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    for line, label, start in (
        ("a.mp4 3 12 20", 3, 12.0),
        ("clip.v2 3", 3, None),
        ("a clip 3", 3, None),
    ):
        listing.write_text(line + "\n")
        (record,) = read_manifest(str(listing)).records
        assert (record.label, record.start_seconds, record.num_frames) == (label, start, None)
    listing.write_text("a 5 0\nb 0 1\n")
    with pytest.raises(ManifestError, match=r"list.txt:2: num_frames is 0; remove the line"):
        read_manifest(str(listing))
    listing.write_text("a 5 0\n" * 200 + "b x\n")
    with pytest.raises(
        ManifestError, match=r"list.txt:201: 'b x' is not `frame_dir num_frames label`"
    ):
        read_manifest(str(listing))


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    """Clean lists and lists of copies: every record, whatever its kind."""

    def record(row: int, path: str, label: Label = None, **facts: Any) -> Record:
        return Record(path=str(tmp_path / path), label=label, row=row, **facts)

    for records in (
        [record(0, "74225", num_frames=5), record(1, "a b/x", num_frames=7)],
        [
            record(0, "74225", 3, num_frames=5),
            record(1, "7", num_frames=7),
            record(2, "9", 0, num_frames=1),
        ],
        [
            record(0, "7", (3,), num_frames=5),
            record(1, "8", num_frames=7),
            record(2, "9", (1, 2), num_frames=1),
        ],
        [record(0, "a.mp4"), record(1, "b c.MKV", 4), record(2, "d 5.mp4/e f", 5)],
        [
            record(0, "clips/0001"),
            record(1, "clips/my 2"),
            record(2, "clips/3", 1, start_seconds=0.5, end_seconds=2.0),
        ],
        [
            record(0, "a.mp4", (1,)),
            record(1, "b.mp4"),
            record(2, "b.mp4", (1, 2), start_seconds=0.0, end_seconds=1.0),
        ],
    ):
        listing = tmp_path / "list.csv"
        listing.write_text(
            "".join(
                format_line(record, os.path.relpath(record.path, tmp_path)) for record in records
            )
        )
        assert read_manifest(str(listing)).records == tuple(records)
    for name in ("7.mp4", "clip 3"):
        with pytest.raises(
            ManifestError,
            match=f"{name}: is a folder of frames whose name ends like a video file's or with",
        ):
            format_line(record(0, name, 1, num_frames=3), name)
