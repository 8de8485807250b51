"""Lists of frame folders: MMAction2's rawframes lists and PySlowFast's lists of pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hiera_video.data.dataset import TestViews, UnreadableVideo, VideoViews
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.errors import ManifestError
from hiera_video.video.options import FrameFolder


def write_pictures(videos: Any, folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(videos.frame(number)).save(folder / f"img_{number + 1:05d}.png")


def test_mmaction2_list(videos: Any, tmp_path: Path) -> None:
    for name, count in (("abseiling/a b", 12), ("zumba/c", 10), ("zumba/d", 10)):
        write_pictures(videos, tmp_path / name, count)
    listing = tmp_path / "train.txt"
    listing.write_text("abseiling/a b 12 0\nzumba/c 8 1\nzumba/d 11 1\n")
    manifest = read_manifest(str(listing))
    assert [(record.label, record.num_frames) for record in manifest.records] == [
        (0, 12),
        (1, 8),
        (1, 11),
    ]
    assert manifest.records[0].path == str(tmp_path / "abseiling/a b")

    class Uncropped:
        @staticmethod
        def views_of(frames: Any, clips: list[list[int]]) -> Any:
            stacked = torch.stack(
                [torch.from_numpy(frames[clip]).permute(3, 0, 1, 2).float() for clip in clips]
            )
            return Crops(clips=stacked, boxes=((0, 0, *frames.shape[1:3]),))

    clip = ClipConfig(num_frames=4, sampling="segments")
    dataset = TestViews(manifest, clip, Uncropped, num_clips=1, decoder=FrameFolder())
    found = [dataset[row] for row in range(3)]
    assert isinstance(found[1], VideoViews) and isinstance(found[2], UnreadableVideo)
    # the number of frames is that of the list, not of the folder
    assert max(videos.numbers(found[1].views[0].permute(1, 2, 3, 0).numpy())) <= 7
    assert found[2].message.endswith("zumba/d: has 10 frames, but its list says 11; make it again")


def test_pyslowfast_list(tmp_path: Path) -> None:
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


HEADER = "original_vido_id video_id frame_id path labels\n"


def write_frames(listing: Path, **videos: list[str]) -> str:
    """Write a list of pictures; each video has the labels of its frames."""
    rows = [
        f"{video} 0 {frame} {video}/{frame}.jpg {label}\n"
        for video, labels in videos.items()
        for frame, label in enumerate(labels)
    ]
    listing.write_text(HEADER + "".join(rows))
    return str(listing)


def test_labels_of_frames(tmp_path: Path) -> None:
    """A video has the labels of all its frames, as in PySlowFast's val and test of Charades."""
    frames = {"a": ['""', '"3"', '"5,1"'], "b": ['"2"', '"4"'], "c": ['""', '""']}
    listing = write_frames(tmp_path / "val.csv", **frames)
    for options, unlabelled in (({"multi_label": True}, ()), ({}, None)):
        manifest = read_manifest(listing, **options)  # type: ignore[arg-type]
        assert manifest.multi_label
        assert [(r.label, r.num_frames) for r in manifest.records] == [
            ((1, 3, 5), 3),
            ((2, 4), 2),
            (unlabelled, 2),
        ]
    listing = write_frames(tmp_path / "one.csv", a=["3", "4"], b=["5", '""'])
    manifest = read_manifest(listing, multi_label=True)
    assert [record.label for record in manifest.records] == [(3, 4), (5,)]


def test_one_label_for_the_frames_of_a_video(tmp_path: Path) -> None:
    listing = write_frames(tmp_path / "a.csv", a=['""', "3", "3"], b=["0", '""'], c=['""'])
    manifest = read_manifest(listing)
    assert [record.label for record in manifest.records] == [3, 0, None]
    assert not manifest.multi_label
    listing = write_frames(tmp_path / "b.csv", a=["1", "1"], b=["3", '""', "5", "6"])
    words = (
        "b.csv:6: b has label 5 here and 3 on earlier frames; set data.multi_label=true, which "
        "gives a video the labels of all its frames, or write one label for all"
    )
    with pytest.raises(ManifestError, match=re.escape(words)):
        read_manifest(listing)


def test_frames_without_labels_name_the_way_to_labels(tmp_path: Path) -> None:
    """PySlowFast's lists of Something-Something v2 have no labels."""
    listing = write_frames(tmp_path / "a.csv", a=['""', '""'])
    words = (
        "/a has no label; write `frame_dir num_frames label` lines; for Something-Something, whose "
        "lists by PySlowFast have no labels, `hiera-video prepare ssv2 --json train.json --frames "
        "FOLDER` writes them; masked pre-training"
    )
    with pytest.raises(ManifestError, match=re.escape(words)):
        read_manifest(listing).require_labels()
    listing = write_frames(tmp_path / "b.csv", a=['"3,5"'], b=['""'])
    words = (
        "/b has no label; write its labels; if videos without labels show none of the classes, set "
        "data.multi_label=true; masked pre-training"
    )
    with pytest.raises(ManifestError, match=re.escape(words)):
        read_manifest(listing).require_labels()
    read_manifest(listing, multi_label=True).require_labels()


def test_single_frames_are_questioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """VideoMAEv2's `frame_dir start total` reads as one frame and a label."""
    listing = tmp_path / "a.csv"
    listing.write_text("x 1 58\ny 2 29\n")
    read_manifest(str(listing))
    assert caplog.messages == []
    listing.write_text("x 1 58\ny 1 29\n")
    read_manifest(str(listing))
    assert caplog.messages == [
        f"warning: {listing}: num_frames is 1 on every line; if the lines are VideoMAEv2's "
        '`frame_dir start total` for pre-training, write `frame_dir total ""`'
    ]


def test_lists_that_are_not_of_frame_folders(tmp_path: Path) -> None:
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
    words = (
        "list.txt:2: num_frames is 0; remove the line or extract the frames again; if the 0 is a "
        "first frame (MMAction2's `frame_dir offset num_frames label`, VideoMAEv2's `frame_dir "
        "start total`), which is not supported, put the frames of each clip into a folder of its "
        "own and write `frame_dir num_frames label`"
    )
    with pytest.raises(ManifestError, match=re.escape(words)):
        read_manifest(str(listing))
    listing.write_text("a 9 24 0\nb 0 24 1\n")
    with pytest.raises(ManifestError, match=re.escape(words)):
        read_manifest(str(listing), multi_label=True)
    listing.write_text("a 5 0\n" * 200 + "b x\n")
    with pytest.raises(
        ManifestError, match=r"list.txt:201: 'b x' is not `frame_dir num_frames label`"
    ):
        read_manifest(str(listing))
