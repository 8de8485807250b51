"""Lists of frame folders: MMAction2's rawframes lists and PySlowFast's lists of pictures."""

from __future__ import annotations

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
    with pytest.raises(ManifestError, match=r"list.txt:2: num_frames is 0; remove the line"):
        read_manifest(str(listing))
    listing.write_text("a 5 0\n" * 200 + "b x\n")
    with pytest.raises(
        ManifestError, match=r"list.txt:201: 'b x' is not `frame_dir num_frames label`"
    ):
        read_manifest(str(listing))
